// What is said of each replica over the steps shown: numbers, and in words what stands out.

import {number} from './format.js';

// As in `tensorboard_plugin/health/replicas.py`, which judges on all records; here it is the steps
// shown.
const STRAGGLING = 0.2;
const LONGEST = 1.2;
const FAR = {loss: 2, gradient_norm: 3};

// Far from the median in this share of the steps shown is no single spike.
const LASTING = 0.25;

// Differences in waiting below this share of a step are the clocks' noise.
const LEAST_WAIT = 0.05;

/** The middle of numbers, NaN of none. */
export function median(values) {
  const sorted = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
  const half = sorted.length >> 1;
  if (!sorted.length) return NaN;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function average(values, from) {
  let sum = 0;
  let count = 0;
  for (let column = from; column < values.length; column += 1) {
    if (!Number.isFinite(values[column])) continue;
    sum += values[column];
    count += 1;
  }
  return count ? sum / count : NaN;
}

/**
 * @param {function(string): ?object[]} linesOf The replicas' arrays of a quantity, or null.
 * @param {number} replicas
 * @param {number} from The first column that counts: the run's first records include tracing.
 * @returns {Array<{replica: number, seconds: number, waiting: number, wait: number, norm: number,
 *     loss: number, far: {norm: number, loss: number}, nonfinite: number,
 *     remarks: Array<{kind: string, text: string}>}>} `seconds`
 *     and `wait` are means, `waiting` is their ratio, `norm` and `loss` are relative to the median
 *     over the replicas, `far` the share of columns in which they are farther from it than `FAR`;
 *     NaN for what cannot be told.
 */
export function summarize(linesOf, replicas, from) {
  const rows = Array.from({length: replicas}, (_, replica) => ({
    replica, seconds: NaN, wait: NaN, waiting: NaN, norm: NaN, loss: NaN, nonfinite: 0,
    far: {norm: 0, loss: 0}, remarks: [],
  }));
  const each = (name, set) => {
    const lines = linesOf(name);
    if (lines) rows.forEach((row, replica) => set(row, lines[replica], lines));
  };
  each('step_seconds', (row, {mean}) => {
    row.seconds = average(mean, from);
  });
  each('wait_seconds', (row, {mean}) => {
    row.wait = average(mean, from);
    row.waiting = row.wait / row.seconds;
  });
  for (const [name, field] of [['gradient_norm', 'norm'], ['loss', 'loss']]) {
    const lines = linesOf(name);
    if (!lines) continue;
    const middle = medians(lines, from);
    rows.forEach((row, replica) => {
      const {mean, nonfinite} = lines[replica];
      const ratios = middle.map((value, index) => (value > 0 ? mean[from + index] / value : NaN))
        .filter(Number.isFinite);
      row[field] = median(ratios);
      const far = ratios.filter((ratio) => ratio > FAR[name] || ratio < 1 / FAR[name]);
      row.far[field] = far.length / Math.max(1, ratios.length);
      row.nonfinite = Math.max(row.nonfinite, nonfinite.reduce((sum, one) => sum + one, 0));
    });
  }
  remark(rows);
  return rows;
}

// Of each column the median over the replicas.
function medians(lines, from) {
  const columns = lines[0].mean.length;
  return Array.from({length: Math.max(0, columns - from)}, (_, index) =>
    median(lines.map(({mean}) => mean[from + index])));
}

function remark(rows) {
  if (rows.length < 2) return;
  const say = (row, kind, text) => row.remarks.push({kind, text});
  const least = rows.reduce((a, b) => (b.wait < a.wait || Number.isNaN(a.wait) ? b : a));
  const others = median(rows.filter((row) => row !== least).map(({wait}) => wait));
  const lost = (others - least.wait) / least.seconds;
  if (lost > STRAGGLING) {
    say(least, 'straggler', `Straggler: the others lose ${percent(lost)} of each step to it`);
  } else if (lost > LEAST_WAIT) say(least, 'note', 'Waits least');
  const usual = median(rows.map(({seconds}) => seconds));
  const longest = rows.reduce((a, b) =>
    (b.seconds > a.seconds || Number.isNaN(a.seconds) ? b : a));
  if (longest.seconds > LONGEST * usual) {
    say(longest, 'straggler', `Longest step: ${number(longest.seconds / usual, 3)} × the median`);
  }
  // Where all have it, as of a loss scale's search, none stands out.
  const common = median(rows.map(({nonfinite}) => nonfinite)) > 0;
  for (const row of rows) {
    for (const [name, label, field] of [
      ['gradient_norm', 'gradient norm', 'norm'], ['loss', 'loss', 'loss'],
    ]) {
      // Of two replicas the median lies half-way between, so neither can be told from it.
      if (rows.length > 2 && row.far[field] >= LASTING) {
        say(row, 'outlier', `Outlier: ${label} more than ${FAR[name]} times off the median in ` +
          `${percent(row.far[field])} of the steps shown`);
      }
    }
    if (row.nonfinite) {
      const times = row.nonfinite === 1 ? 'once' : `${number(row.nonfinite)} times`;
      say(row, common ? 'note' : 'outlier', `NaN or infinite ${times}`);
    }
  }
}

/** A share as "12%". */
export function percent(share) {
  if (!Number.isFinite(share)) return '–';
  return share > 0 && share < 0.005 ? '< 1%' : `${Math.round(100 * share)}%`;
}

/** Seconds as "12.3 ms" where they are few, else "1.23 s". */
export function seconds(value, digits = 4) {
  if (!Number.isFinite(value)) return number(value);
  return Math.abs(value) < 1
    ? `${number(1000 * value, digits)}\u00a0ms` : `${number(value, digits)}\u00a0s`;
}
