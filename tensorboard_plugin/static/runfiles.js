// Files of several runs at once: what the server exports of each, in one file, and the differences
// of their heatmaps, which the page alone has.

import {askFile} from './api.js';

// A record of a CSV file: cells in quotes may hold line ends.
const RECORD = /(?:"(?:[^"]|"")*"|[^"\r\n])+\r\n/g;

// A spreadsheet takes a cell that begins like this for a formula; the server does the same.
const FORMULA = /^[=+\-@\t\r\n]/;

/**
 * What the route `export` gives of some runs, with the run in front of each record.
 * @param {string[]} runs
 * @param {object} parameters Of the route, but for the run; `format` is "csv" or "json".
 * @returns {Promise<{blob: Blob, name: string}>}
 */
export async function askRuns(runs, parameters) {
  const {format, what, statistic} = parameters;
  const texts = await Promise.all(runs.map(async (run) =>
    (await askFile('export', {...parameters, run})).blob.text()));
  const name = fileName(format, what, statistic);
  if (format === 'json') {
    const found = runs.map((run, index) => ({run, ...JSON.parse(texts[index])}));
    return file(JSON.stringify({runs: found}), name);
  }
  const tables = texts.map((text) => text.match(RECORD) || []);
  const [heading] = tables.map(([first]) => first).filter(Boolean);
  const records = tables.flatMap(([, ...rest], index) =>
    rest.map((record) => `${cell(runs[index])},${record}`));
  return file([`run,${heading}`, ...records].join(''), name);
}

/**
 * The differences that a `HeatStack` shows.
 * @param {object[]} differences Of its cells.
 * @param {{name: string}} statistic
 * @param {string} format "csv" or "json".
 */
export function differencesFile(differences, statistic, format) {
  const records = differences.flatMap(({found, base, other, rows, log}) =>
    rows.flatMap((variable, row) => Array.from({length: found.axis.columns}, (_, column) => {
      const at = row * found.axis.columns + column;
      return {
        baseline: base.name, run: other.name, variable, statistic: statistic.name,
        first_step: found.axis.first[column], last_step: found.axis.last[column],
        baseline_mean: found.base[at], run_mean: found.other[at],
        [log ? 'log10_ratio' : 'difference']: found.values[at],
      };
    })));
  const name = fileName(format, 'differences', statistic.name);
  if (format === 'json') {
    const texts = {Infinity: 'inf', '-Infinity': '-inf'};
    return file(JSON.stringify(records, (_, value) =>
      (Number.isNaN(value) ? null : texts[value] ?? value)), name);
  }
  const names = Object.keys(records[0] || {});
  const lines = records.map((record) => names.map((one) => cell(record[one])).join(','));
  return file([names.join(','), ...lines, ''].join('\r\n'), name);
}

function cell(value) {
  if (typeof value === 'number') return Number.isNaN(value) ? '' : String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function fileName(format, ...parts) {
  const named = parts.filter(Boolean).map((part) =>
    part.slice(0, 60).replace(/[^A-Za-z0-9_.-]+|\.\.+/g, '_'));
  return `${['disttrain', 'compare', ...named].join('-')}.${format}`;
}

function file(text, name) {
  return {blob: new Blob([text]), name};
}
