// In what the configurations of runs differ: optimizer, clip, loss scale, replicas.

import {element} from './dom.js';
import {count} from './format.js';
import {swatch} from './layercolors.js';

const MOST_DEPTH = 6;
const MOST_ENTRIES = 300;
const MOST_NAMED = 6;
const MOST_LETTERS = 80;

const short = (text) =>
  (text.length > MOST_LETTERS ? `${text.slice(0, MOST_LETTERS - 1)}…` : text);

// Where a class lives in Python, and what Keras adds for itself, say nothing of the training.
const LEFT_OUT = new Set(['module', 'registered_name', 'build_config']);

// A configuration as `name -> text`; objects of Keras are their class with fields below.
function flatten(value, name, found, depth = 0) {
  if (found.size >= MOST_ENTRIES || value === null || value === undefined) return;
  if (typeof value !== 'object' || Array.isArray(value) || depth === MOST_DEPTH) {
    found.set(name, typeof value === 'string' ? value : JSON.stringify(value));
    return;
  }
  const below = (key) => (name ? `${name} / ${key}` : key).replaceAll('_', ' ');
  const {class_name: kind, config, ...others} = value;
  if (kind !== undefined) found.set(name || 'optimizer', String(kind));
  const fields = config && typeof config === 'object' ? {...config} : {};
  if (kind !== undefined) delete fields.name;
  for (const [key, one] of Object.entries({...fields, ...others})) {
    if (!LEFT_OUT.has(key)) flatten(one, below(key), found, depth + 1);
  }
}

/**
 * The settings that are not the same in all runs.
 * @param {object[]} runs As the route `runs` has them.
 * @returns {Array<{name: string, values: string[]}>} `–` where a run has no such setting.
 */
export function differences(runs) {
  const settings = runs.map((run) => {
    const found = new Map();
    flatten(run.optimizer || {}, '', found);
    found.set('replicas', String(run.replicas));
    found.set('layers', String(run.variables));
    return found;
  });
  const names = new Set(settings.flatMap((found) => [...found.keys()]));
  return [...names]
    .map((name) => ({name, values: settings.map((found) => found.get(name) ?? '–')}))
    .filter(({values}) => new Set(values).size > 1);
}

/** The table of differences, folded into a line that names them. */
export class Configuration {
  constructor() {
    this.title = element('summary', {});
    this.table = element('table', {class: 'settings-table'});
    this.none = element('p', {class: 'quiet'}, 'No setting of the optimizer, and no number of ' +
      'replicas or layers, differs.');
    this.folded = element(
      'details', {class: 'settings'}, this.title,
      element('div', {class: 'settings-scroll'}, this.table));
    this.root = element('section', {}, this.none, this.folded);
  }

  /** @param {Array<{run: object, name: string, place: number}>} parts */
  show(parts) {
    const rows = differences(parts.map(({run}) => run));
    this.none.hidden = rows.length > 0;
    this.folded.hidden = !rows.length;
    const names = rows.slice(0, MOST_NAMED).map(({name}) => short(name));
    this.title.textContent =
      `${count(rows.length, 'setting')} differ${rows.length === 1 ? 's' : ''}: ` +
      `${names.join(', ')}${rows.length > names.length ? ', …' : ''}`;
    this.table.replaceChildren(
      element(
        'thead', {},
        element(
          'tr', {}, element('th', {scope: 'col'}, 'Setting'), ...parts.map(({name, place}) =>
            element('th', {scope: 'col', title: name}, swatch(place), ` ${short(name)}`)))),
      element(
        'tbody', {}, ...rows.map(({name, values}) => element(
          'tr', {}, element('th', {scope: 'row', title: name}, short(name)),
          ...values.map((value) => element('td', {title: value}, short(value)))))));
  }
}
