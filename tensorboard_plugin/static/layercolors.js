// How chosen layers are told apart everywhere: a colour, a dash pattern and a number each.
//
// The colours follow Okabe and Ito (jfly.uni-koeln.de/color), made darker or lighter until each
// stands out from the page at 3 : 1 or more in light and in dark; they are in `layers.css`.

import {css, element} from './dom.js';

/** Of each place, the dashes of its lines in CSS pixels. */
export const DASHES = [
  [], [9, 3], [3, 2], [9, 3, 2, 3], [14, 4], [6, 3, 2, 3, 2, 3], [2, 4], [14, 3, 5, 3],
];

/** Most layers drawn at once: more colours than these cannot be told apart. */
export const MOST_LAYERS = DASHES.length;

/** The number of a place, as beside its lines. */
export function placeName(place) {
  return String(place + 1);
}

/** The colour of a place in the page's theme. */
export function placeColor(place) {
  return css(`--layer-${place + 1}`);
}

/** A colour `#rrggbb` with an opacity. */
export function faded(color, opacity) {
  return `${color}${Math.round(255 * opacity).toString(16).padStart(2, '0')}`;
}

/** A short piece of a place's line with its number, for legends; readers hear the name beside. */
export function swatch(place) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  const attributes = {
    x1: 0, x2: 30, y1: 4, y2: 4, stroke: 'currentColor', 'stroke-width': 2.5,
    'stroke-dasharray': DASHES[place].join(' '),
  };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  svg.setAttribute('width', 30);
  svg.setAttribute('height', 8);
  svg.append(line);
  const root = element(
    'span', {class: 'layer-swatch', aria: {hidden: 'true'}}, svg,
    element('b', {}, placeName(place)));
  root.style.color = `var(--layer-${place + 1})`;
  return root;
}

/**
 * Gives each path a place and keeps the one it had, so that colours stay where layers come and go.
 * @param {string[]} paths At most `MOST_LAYERS`.
 * @param {Map<string, number>} before What was given last.
 * @returns {Map<string, number>}
 */
export function givePlaces(paths, before) {
  const kept = paths.filter((path) => before.has(path)).map((path) => before.get(path));
  const free = DASHES.map((_, place) => place).filter((place) => !kept.includes(place));
  return new Map(paths.map((path) => [path, before.has(path) ? before.get(path) : free.shift()]));
}
