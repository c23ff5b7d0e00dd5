// What each chosen variable is: a table.

import {element} from './dom.js';
import {bytes, whole} from './format.js';
import {swatch} from './layercolors.js';

const HEADINGS = ['Layer', 'Shape', 'Parameters', 'Type', 'Trained', 'Optimizer slots'];

function slotText([name, slot]) {
  const {dtype, bytes: size} = slot && typeof slot === 'object' ? slot : {};
  return [name, dtype, Number.isFinite(size) ? bytes(size) : null].filter(Boolean).join('\u00a0');
}

/**
 * @param {object[]} variables As of the route `variables`.
 * @param {Map<string, number>} places Of the paths.
 * @param {function(string)} onOpen Called with a path whose name was clicked.
 */
export function factsTable(variables, places, onOpen) {
  const rows = variables.map((variable) => {
    const {path, shape, parameters, dtype, trainable, slots} = variable;
    const open = element(
      'button', {class: 'link', type: 'button', title: path.slice(0, 1000),
        onclick: () => onOpen(path)}, path);
    return element(
      'tr', {},
      element('th', {scope: 'row'}, element('div', {}, swatch(places.get(path)), open)),
      element('td', {}, shape.length ? shape.map(whole).join('\u00a0×\u00a0') : 'scalar'),
      element('td', {class: 'numeric'}, whole(parameters)),
      element('td', {}, dtype),
      element('td', {}, trainable ? 'yes' : 'no'),
      element('td', {}, Object.entries(slots).map(slotText).join(', ') || 'none'));
  });
  return element(
    'table', {class: 'layer-facts'},
    element('thead', {}, element('tr', {}, ...HEADINGS.map((text) =>
      element('th', {scope: 'col', class: text === 'Parameters' ? 'numeric' : ''}, text)))),
    element('tbody', {}, ...rows));
}
