// An optimizer's configuration as a table that people read, from what the metadata holds as JSON.

import {element} from './dom.js';
import {exact} from './format.js';

// What the trainer puts around the optimizer, in this order; null there is an answer.
const AROUND = [
  ['clip', 'Clip', 'none'],
  ['loss_scale', 'Loss scale', 'none'],
  ['reduction', 'Reduction', 'none'],
  ['compression', 'Compression', 'none'],
  ['accumulate_steps', 'Accumulated steps', '1'],
];

// A configuration is of any size and depth; a person reads no more.
const MOST_ROWS = 300;
const MOST_DEPTH = 8;
const MOST_LETTERS = 200;
const MOST_TITLE = 2000;

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isKeras = (value) =>
  isObject(value) && typeof value.class_name === 'string' && isObject(value.config);

/** A text that fits a cell. */
export function shortened(text, most = MOST_LETTERS) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/**
 * The name of the optimizer, "Lookahead of Adam" where one is inside another.
 * @param {object} configuration As the metadata holds it.
 */
export function optimizerName(configuration) {
  const names = [];
  let at = configuration;
  for (let depth = 0; depth < MOST_DEPTH && isObject(at); depth += 1) {
    const name = at.class_name || (isObject(at.config) ? at.config.name : at.name);
    if (typeof name === 'string' && name) names.push(shortened(name, 60));
    at = isObject(at.config) ? at.config.inner : null;
  }
  return names.join(' of ') || 'Optimizer';
}

/**
 * Rows of a table.
 * @param {object} configuration As the metadata holds it.
 * @returns {{rows: Array<{name: string, text: ?string, depth: number, around: boolean}>,
 *     unset: string[]}} `unset` are the hyperparameters that are null; `text` is null above rows
 *     that say more; `around` is what the trainer puts around the optimizer.
 */
export function configurationRows(configuration) {
  const found = {rows: [], unset: []};
  const keras = isKeras(configuration);
  const own = keras ? configuration.config : Object.fromEntries(
    Object.entries(configuration).filter(([name]) =>
      name !== 'class_name' && !AROUND.some(([key]) => key === name)));
  if (typeof configuration.class_name === 'string') {
    describe(found, 'Class', configuration.class_name, 0);
  }
  if ('learning_rate' in own) describe(found, 'learning_rate', own.learning_rate, 0);
  for (const [name, value] of Object.entries(own)) {
    // Keras's own name for the object says the class again.
    if (name !== 'learning_rate' && !(keras && name === 'name')) describe(found, name, value, 0);
  }
  for (const [key, label, none] of AROUND) {
    if (!(key in configuration)) continue;
    const value = configuration[key];
    describe(found, label, value === null ? none : value, 0, true);
  }
  return found;
}

function describe(found, name, value, depth, around = false) {
  const {rows} = found;
  if (rows.length > MOST_ROWS) return;
  if (rows.length === MOST_ROWS) {
    rows.push({name: '…', text: 'and more', depth: 0, around});
  } else if (value === null) {
    if (depth) rows.push({name, text: 'not set', depth, around});
    else found.unset.push(name);
  } else if (depth >= MOST_DEPTH && typeof value === 'object') {
    rows.push({name, text: JSON.stringify(value), depth, around});
  } else if (isKeras(value)) {
    rows.push({name, text: value.class_name, depth, around});
    for (const [key, one] of Object.entries(value.config)) {
      if (key !== 'name') describe(found, key, one, depth + 1, around);
    }
  } else if (isObject(value)) {
    rows.push({name, text: Object.keys(value).length ? null : 'empty', depth, around});
    for (const [key, one] of Object.entries(value)) describe(found, key, one, depth + 1, around);
  } else if (Array.isArray(value) && value.some((one) => typeof one === 'object')) {
    rows.push({name, text: null, depth, around});
    value.forEach((one, index) => describe(found, String(index + 1), one, depth + 1, around));
  } else {
    rows.push({name, text: plain(value), depth, around});
  }
}

function plain(value) {
  if (typeof value === 'number') return exact(value);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value)) return value.map(plain).join(', ') || 'none';
  return String(value);
}

/** The table of a configuration, and a line with what is not set. */
export function configurationTable(configuration) {
  const {rows, unset} = configurationRows(configuration);
  if (!rows.length && !unset.length) {
    return element('p', {class: 'quiet'}, 'The run does not say how it was configured.');
  }
  const body = rows.map(({name, text, depth, around}, index) => {
    const head = element(
      'th', {scope: 'row', title: name.slice(0, MOST_TITLE)}, shortened(name));
    head.style.paddingLeft = `${depth * 14}px`;
    const first = around && index > 0 && !rows[index - 1].around;
    const shown = text === null ? '' : text;
    return element(
      'tr', {class: first ? 'around' : ''}, head,
      element('td', {title: shown.slice(0, MOST_TITLE)}, shortened(shown)));
  });
  const names = shortened(unset.map((name) => shortened(name, 60)).join(', '), 1000);
  return element(
    'div', {},
    element(
      'table', {class: 'configuration', aria: {label: 'Configuration of the optimizer'}},
      element('tbody', {}, ...body)),
    names ? element('p', {class: 'quiet'}, `Not set: ${names}.`) : null);
}
