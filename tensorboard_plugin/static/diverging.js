// Colours for differences: blue below 0, orange above, told apart by every kind of colour vision.

import {number, ticks} from './format.js';

const SHADES = 255;

// At five even places from lowest to highest; the middle is close to the page.
const STOPS = {
  light: [[14, 77, 146], [111, 168, 220], [244, 244, 244], [233, 161, 90], [156, 74, 0]],
  dark: [[140, 196, 255], [52, 113, 176], [62, 62, 64], [178, 98, 28], [255, 186, 115]],
};

/** Where either value is not finite: darker or lighter than any shade. */
const BROKEN = {light: [0, 0, 0], dark: [255, 255, 255]};

const palettes = Object.fromEntries(Object.entries(STOPS).map(([theme, stops]) => [
  theme,
  Array.from({length: SHADES}, (_, index) => {
    const place = (index / (SHADES - 1)) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    return stops[left].map((from, channel) =>
      Math.round(from + (stops[left + 1][channel] - from) * (place - left)));
  }),
]));

function theme() {
  return document.documentElement.classList.contains('dark') ? 'dark' : 'light';
}

/**
 * A scale around 0 for differences; its ends cover all but the farthest hundredth.
 * @param {Float32Array} values
 * @param {boolean} log Whether values are log10 of ratios.
 * @returns {object} What `Legend` and cells take: `low`, `high`, `place`, `shade`, `palette`,
 *     `notFinite`, and `ticks`, `{value, label}` each.
 */
export function divergingScale(values, log) {
  const sizes = [];
  const stride = Math.max(1, Math.floor(values.length / 100000));
  for (let at = 0; at < values.length; at += stride) {
    if (Number.isFinite(values[at])) sizes.push(Math.abs(values[at]));
  }
  sizes.sort((a, b) => a - b);
  const far = sizes.length ? sizes[Math.ceil(0.99 * (sizes.length - 1))] : 0;
  // Where all is equal, some room; a ratio of less than 1.1 is no difference to paint bright.
  const limit = log ? Math.max(far, Math.log10(1.1)) : far || 1;
  const place = (value) => (value + limit) / (2 * limit);
  return {
    log,
    low: -limit,
    high: limit,
    target: null,
    place,
    shade: (value) => Math.max(0, Math.min(SHADES - 1, Math.round(place(value) * (SHADES - 1)))),
    get palette() {
      return palettes[theme()];
    },
    get notFinite() {
      return BROKEN[theme()];
    },
    ticks: log ? ratioTicks(limit) : ticks(-limit, limit, 5).map((value) => ({
      value, label: `${value > 0 ? '+' : ''}${number(value, 3)}`.replace('-', '−'),
    })),
  };
}

// Factors to both sides of 1: powers of ten on a wide scale, 2, 5 and 10 or less on a narrow one.
function ratioTicks(limit) {
  const factors = limit >= 1.5
    ? [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30].filter((_, index, all) =>
      all[index] % Math.ceil(limit / 3) === 0).map((exponent) => 10 ** exponent)
    : [10, 5, 2, 1.5, 1.2, 1.1, 1.05];
  const fitting = factors.filter((factor) => Math.log10(factor) <= limit * 1.001);
  const sides = (limit >= 1.5 ? fitting : fitting.slice(0, 2)).flatMap((factor) => [
    {value: Math.log10(factor), label: `× ${number(factor, 3)}`},
    {value: -Math.log10(factor), label: `÷ ${number(factor, 3)}`},
  ]);
  return [{value: 0, label: 'equal'}, ...sides];
}

/** A difference in words: "× 2.5", "÷ 3", "equal"; "+0.1" on a linear scale. */
export function differenceText(value, log) {
  if (Number.isNaN(value)) return 'NaN';
  if (value === 0) return log ? '× 1' : '0';
  if (!log) return `${value > 0 ? '+' : ''}${number(value, 5)}`.replace('-', '−');
  return value > 0 ? `× ${number(10 ** value, 5)}` : `÷ ${number(10 ** -value, 5)}`;
}
