// What several runs have in common: which are compared, their rows, their axes, their difference.
// Numbers alone; drawing is in `cells.js` and `overlay.js`.

import {StepAxis} from './axis.js';
import {ticks} from './format.js';
import {Horizontal} from './horizontal.js';

/** More runs at once can hardly be told apart. */
export const MOST_RUNS = 6;

/** Whether a run holds anything that can be compared. */
export function comparable({last_step: last, statistics, quantities}) {
  return last >= 0 && statistics.length + quantities.length > 0;
}

/**
 * The runs that are compared: those of the state, or else the chosen one and the newest other.
 * @param {object[]} runs As the route `runs` has them, the newest first.
 * @param {{run: string, runs: string[]}} state
 * @returns {{names: string[], left: number}} `left` is how many more were asked for.
 */
export function chosenRuns(runs, {run, runs: wanted}) {
  const usable = runs.filter(comparable).map(({name}) => name);
  const known = [...new Set(wanted)].filter((name) => usable.includes(name));
  if (known.length) {
    return {names: known.slice(0, MOST_RUNS), left: Math.max(0, known.length - MOST_RUNS)};
  }
  const own = usable.filter((name) => name === run);
  return {names: [...own, ...usable.filter((name) => name !== run)].slice(0, 2), left: 0};
}

/**
 * The layers of several runs in one order: that of the first, other layers behind their neighbours.
 * @param {string[][]} lists Paths of each run.
 * @returns {{paths: string[], common: number, shared: number}} `common` is how many all runs have,
 *     `shared` how many at least two have.
 */
export function matchRows(lists) {
  let paths = [];
  const known = new Set();
  const runs = new Map();
  for (const list of lists) {
    const behind = new Map();
    let neighbour = null;
    for (const path of new Set(list)) {
      runs.set(path, (runs.get(path) || 0) + 1);
      if (known.has(path)) neighbour = path;
      else behind.set(neighbour, [...(behind.get(neighbour) || []), path]);
    }
    paths = [...(behind.get(null) || []),
      ...paths.flatMap((path) => [path, ...(behind.get(path) || [])])];
    for (const path of paths) known.add(path);
  }
  const held = (least) => paths.filter((path) => runs.get(path) >= least).length;
  return {paths, common: held(lists.length), shared: held(2)};
}

/** The horizontal axis that several runs share. */
export class CommonAxis {
  /** @param {Horizontal[]} horizontals Of one kind; those without columns count for nothing. */
  constructor(horizontals) {
    this.parts = horizontals.filter(({columns}) => columns);
    this.kind = horizontals[0]?.kind || 'step';
    this.low = Math.min(...this.parts.map(({low}) => low));
    this.high = Math.max(...this.parts.map(({high}) => high));
  }

  /** Round places for ticks on an axis of that many pixels. */
  ticks(width) {
    if (this.kind === 'step') return ticks(Math.max(0, this.low), this.high, width / 90, true);
    return Horizontal.prototype.ticks.call(this, width);
  }

  labels(places) {
    return Horizontal.prototype.labels.call(this, places);
  }

  /** The first and last step of any run between two places, or null. */
  stepsWithin(low, high) {
    const found = this.parts.map((part) => part.stepsWithin(low, high)).filter(Boolean);
    if (!found.length) return null;
    return [Math.min(...found.map(([first]) => first)), Math.max(...found.map(([, last]) => last))];
  }
}

/**
 * Columns that two runs share. Within the steps that both have, they are those of the run with
 * fewer, and of the other all that lie nearest to each.
 * @param {StepAxis} base
 * @param {StepAxis} other
 * @returns {{axis: StepAxis, groups: Array<{base: number[], other: number[]}>, coarse: string}}
 *     `coarse` is "base" or "other"; the groups are columns of each.
 */
export function commonColumns(base, other) {
  const low = Math.max(base.first[0], other.first[0]);
  const high = Math.min(base.last[base.columns - 1], other.last[other.columns - 1]);
  const inside = (axis) => axis.middle.map((_, column) => column)
    .filter((column) => axis.last[column] >= low && axis.first[column] <= high);
  const both = base.columns > 0 && other.columns > 0;
  const [ofBase, ofOther] = both ? [inside(base), inside(other)] : [[], []];
  const coarse = ofBase.length <= ofOther.length ? 'base' : 'other';
  const [rough, fine] = coarse === 'base' ? [base, other] : [other, base];
  const nearest = new Map();
  for (const column of coarse === 'base' ? ofOther : ofBase) {
    const at = rough.columnAt(fine.middle[column]);
    nearest.set(at, [...(nearest.get(at) || []), column]);
  }
  const groups = [];
  const kept = {first_step: [], last_step: []};
  for (const column of coarse === 'base' ? ofBase : ofOther) {
    const near = nearest.get(column);
    if (!near) continue;
    groups.push(coarse === 'base' ? {base: [column], other: near} : {base: near, other: [column]});
    kept.first_step.push(rough.first[column]);
    kept.last_step.push(rough.last[column]);
  }
  return {axis: new StepAxis({...kept, records: groups.length}), groups, coarse};
}

// The mean over some columns of a row: NaN where nothing was recorded, and whether any record there
// was not finite.
function meanOf({heat, axis}, row, columns) {
  let sum = 0;
  let amount = 0;
  let broken = false;
  for (const column of columns) {
    const at = row * axis.columns + column;
    if (heat.nonfinite.values[at] > 0) broken = true;
    const value = heat.mean.values[at];
    if (Number.isNaN(value)) continue;
    sum += value;
    amount += 1;
  }
  return {value: amount ? sum / amount : NaN, broken};
}

/**
 * A statistic's difference of two runs, layer by layer on their common columns.
 *
 * On a logarithmic scale it is log10 of other / base: infinite where one alone is 0, and 0 where
 * both are. On a linear one it is other - base.
 *
 * @param {{heat: object, axis: StepAxis, rowOf: Map<string, number>}} base
 * @param {{heat: object, axis: StepAxis, rowOf: Map<string, number>}} other
 * @param {string[]} paths The rows wanted.
 * @param {boolean} log
 * @returns {object} `axis`, `coarse`, and `[paths, columns]` arrays `values`, `base`, `other`, and
 *     `broken`, 1 where either was not finite; NaN stands where either was not recorded.
 */
export function differenceOf(base, other, paths, log) {
  const {axis, groups, coarse} = commonColumns(base.axis, other.axis);
  const size = paths.length * groups.length;
  const found = {
    axis, coarse, values: new Float32Array(size).fill(NaN), broken: new Uint8Array(size),
    base: new Float32Array(size).fill(NaN), other: new Float32Array(size).fill(NaN),
  };
  paths.forEach((path, place) => {
    const rows = [base.rowOf.get(path), other.rowOf.get(path)];
    if (rows.includes(undefined)) return;
    groups.forEach((group, column) => {
      const at = place * groups.length + column;
      const a = meanOf(base, rows[0], group.base);
      const b = meanOf(other, rows[1], group.other);
      found.base[at] = a.value;
      found.other[at] = b.value;
      found.broken[at] = a.broken || b.broken ? 1 : 0;
      if (log) found.values[at] = a.value === b.value ? 0 : Math.log10(b.value / a.value);
      else found.values[at] = b.value - a.value;
    });
  });
  return found;
}

/** The parts of some heatmaps' values in one array. */
export function together(arrays) {
  const all = new Float32Array(arrays.reduce((sum, {length}) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    all.set(array, at);
    at += array.length;
  }
  return all;
}
