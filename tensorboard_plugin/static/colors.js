// From a statistic's values to colours: an even, colour-blind-safe scale and its range.

import {power, number, ticks} from './format.js';

// Viridis at ten even places; between them, straight lines.
const STOPS = [
  [68, 1, 84], [72, 40, 120], [62, 73, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37],
];
const SHADES = 256;

/** Cells without a place on the scale: outside viridis in lightness or hue, for every eye. */
export const NOT_FINITE = [255, 69, 20];
export const ZERO = [0, 0, 0];

/** The scale's colours from lowest to highest, as `[red, green, blue]`. */
export const PALETTE = Array.from({length: SHADES}, (_, index) => {
  const place = (index / (SHADES - 1)) * (STOPS.length - 1);
  const left = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[left].map((from, channel) =>
    Math.round(from + (STOPS[left + 1][channel] - from) * (place - left)));
});

/** `rgb()` of three channels. */
export function rgb([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/**
 * The scale for a statistic's values.
 *
 * Its range covers all but the lowest and highest hundredth, so that one outlier does not take all
 * the colours; on a logarithmic scale it also covers a decade about the statistic's target.
 *
 * @param {{scale: string, target: ?number}} statistic
 * @param {Float32Array} values
 * @returns {{log: boolean, low: number, high: number, target: ?number, shade: function(number):
 *     number}} Ends in units of the statistic; `shade` gives an index into `PALETTE`.
 */
export function colorScale(statistic, values) {
  const log = statistic.scale === 'log';
  const place = log ? Math.log10 : (value) => value;
  const usable = log ? (value) => value > 0 && value < Infinity : Number.isFinite;
  const stride = Math.max(1, Math.floor(values.length / 10000));
  const found = [];
  for (let index = 0; index < values.length; index += stride) {
    if (usable(values[index])) found.push(place(values[index]));
  }
  const sample = Float64Array.from(found).sort(); // By value, and faster than an array is.
  let low = sample.length ? sample[Math.floor(0.01 * (sample.length - 1))] : 0;
  let high = sample.length ? sample[Math.ceil(0.99 * (sample.length - 1))] : 1;
  if (log && statistic.target) {
    low = Math.min(low, Math.log10(statistic.target) - 1);
    high = Math.max(high, Math.log10(statistic.target) + 1);
  }
  if (log && high - low < 1) [low, high] = [(low + high - 1) / 2, (low + high + 1) / 2];
  if (low === high) {
    const room = Math.abs(low) / 10;
    [low, high] = low ? [low - room, low + room] : [0, 1];
  }
  const factor = (SHADES - 1) / (high - low);
  return {
    log,
    low: log ? 10 ** low : low,
    high: log ? 10 ** high : high,
    target: statistic.target,
    place: (value) => (place(value) - low) / (high - low),
    shade: (value) => Math.max(0, Math.min(SHADES - 1, Math.round((place(value) - low) * factor))),
  };
}

/** Where a legend has marks: `[{value, label}]`, labels empty for minor ones. */
export function legendTicks(scale) {
  if (!scale.log) {
    return ticks(scale.low, scale.high, 5).map((value) => ({value, label: number(value)}));
  }
  const first = Math.floor(Math.log10(scale.low));
  const last = Math.ceil(Math.log10(scale.high));
  const every = Math.ceil((last - first) / 7);
  const narrow = Math.log10(scale.high / scale.low) < 2;
  const found = [];
  for (let exponent = first; exponent <= last; exponent += 1) {
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** exponent;
      if (value < scale.low * 0.999 || value > scale.high * 1.001) continue;
      const decade = factor === 1;
      if (!decade && last - first > 4) continue;
      const named = decade ? exponent % every === 0 : narrow;
      const text = decade && !narrow ? power(exponent) : number(value, 1);
      found.push({value, label: named ? text : ''});
    }
  }
  return found;
}
