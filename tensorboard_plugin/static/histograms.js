// What an answer of `histograms` says, layer by layer.

import {number} from './format.js';

/** The counts of elements that a ridge does not show, and what they are called. */
export const SHARES = [
  ['zero', 'zero'], ['negative', 'negative'], ['nan', 'NaN'], ['infinity', '∞'],
];

// Magnitudes that a float64 can have; other bins would only come from damaged metadata.
const MOST_EXPONENT = 1100;

/** A share of all elements as people read it. */
export function share(part, total) {
  if (!(total > 0)) return '–';
  if (part === 0) return '0';
  const percent = (100 * part) / total;
  if (percent < 0.01) return '<0.01%';
  return `${number(percent, percent < 99 ? 2 : 4)}%`;
}

/**
 * The histograms of each column that has some.
 * @param {object} answer Of `histograms`.
 * @param {number} index Of the variable in the answer.
 * @returns {{exponents: number[], ridges: Array<{column: number, counts: object, values:
 *     Float32Array, total: number}>}} `values` are counts by exponent, `counts` the others by name.
 */
export function readRidges(answer, index) {
  const {bins, mean: {shape: [, columns, width], values: all}} = answer;
  const magnitudes = bins.map((bin, place) => [bin, place])
    .filter(([bin]) => typeof bin === 'number' && Math.abs(bin) <= MOST_EXPONENT);
  const ridges = [];
  for (let column = 0; column < columns; column += 1) {
    const start = (index * columns + column) * width;
    const row = all.subarray(start, start + width);
    if (row.every(Number.isNaN)) continue;
    const at = (place) => (place < 0 || Number.isNaN(row[place]) ? 0 : row[place]);
    const counts = Object.fromEntries(SHARES.map(([name]) => [name, at(bins.indexOf(name))]));
    const values = Float32Array.from(magnitudes, ([, place]) => at(place));
    const total = values.reduce((sum, value) => sum + value, 0) +
      counts.zero + counts.nan + counts.infinity;
    ridges.push({column, counts, values, total});
  }
  return {exponents: magnitudes.map(([bin]) => bin), ridges};
}

/** The first and last exponent with any element among several layers' ridges, or null. */
export function occupied(layers) {
  let low = Infinity;
  let high = -Infinity;
  for (const {exponents, ridges} of layers) {
    for (const {values} of ridges) {
      values.forEach((value, place) => {
        if (!(value > 0)) return;
        low = Math.min(low, exponents[place]);
        high = Math.max(high, exponents[place]);
      });
    }
  }
  return low > high ? null : [low, high];
}
