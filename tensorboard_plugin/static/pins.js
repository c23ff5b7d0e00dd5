// Charts that stay at the top of every view, whichever run is shown; what they draw is in
// `pinned.js`.

import {askJson} from './api.js';
import {element} from './dom.js';
import {makePinned} from './pinned.js';

// As many fit beside each other; more would leave the views no room.
const MOST = 6;

const KINDS = ['layers', 'run', 'replicas', 'runs'];

/**
 * A pin as the state keeps it.
 * @param {{kind: string, name: string, of: string[]}} pin `kind` is "layers", "run", "replicas" or
 *     "runs"; `name` that of a statistic or quantity; `of` paths of layers or names of runs.
 */
function pinText({kind, name, of = []}) {
  if (kind === 'run') return JSON.stringify([null, name]);
  if (kind === 'layers' && of.length === 1) return JSON.stringify([of[0], name]);
  return JSON.stringify([kind, name, of]);
}

// What a pin of the state names, or null where an address holds something else.
function readPin(text) {
  const isText = (one) => typeof one === 'string';
  try {
    const found = JSON.parse(text);
    if (!Array.isArray(found) || !isText(found[1])) return null;
    const [first, name, of] = found;
    if (found.length === 2 && first === null) return {kind: 'run', name, of: []};
    if (found.length === 2 && isText(first)) return {kind: 'layers', name, of: [first]};
    const lists = found.length === 3 && KINDS.includes(first) && Array.isArray(of);
    return lists && of.every(isText) ? {kind: first, name, of} : null;
  } catch {
    return null;
  }
}

/** A button that pins a chart, and takes the pin away where it is pinned. */
export function pinButton(page, pin, label) {
  const text = pinText(pin);
  const pinned = () => page.state.pins.includes(text);
  const button = element('button', {
    class: 'pin', type: 'button', dataset: {pin: text}, onclick: () => page.pins.toggle(text),
  });
  const show = () => {
    button.setAttribute('aria-pressed', pinned());
    button.setAttribute('aria-label', `${pinned() ? 'Unpin' : 'Pin'} ${label}`);
    button.title = pinned() ? 'Take away from the top' : 'Keep at the top of every view';
  };
  button.append(icon());
  show();
  button.refresh = show;
  return button;
}

function refreshButtons() {
  for (const button of document.querySelectorAll('button.pin')) button.refresh();
}

// A drawing pin, as lines that follow the text's colour.
function icon() {
  const space = 'http://www.w3.org/2000/svg';
  const drawing = document.createElementNS(space, 'svg');
  drawing.setAttribute('viewBox', '0 0 16 16');
  drawing.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', 'M5.5 1.5h5M6 1.5v5L3.5 9.5h9L10 6.5v-5M8 9.5v5');
  drawing.append(path);
  return drawing;
}

export class Pins {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.root = element(
      'section', {class: 'pins', hidden: true, aria: {label: 'Pinned charts'}});
    this.charts = [];
  }

  /** Pins a chart, or takes its pin away; the oldest gives way where there are too many. */
  async toggle(pin) {
    const {pins} = this.page.state;
    const kept = pins.filter((other) => other !== pin);
    if (kept.length === pins.length) kept.push(pin);
    this.page.note({pins: kept.slice(-MOST)});
    refreshButtons();
    const had = this.root.hidden;
    await this.load();
    if (had !== this.root.hidden) this.page.view.layout();
  }

  /** Asks for what is pinned, and shows it. */
  async load(signal = undefined) {
    const {run, state} = this.page;
    // An address may write the same pin in other ways.
    const texts = state.pins.map(readPin).filter(Boolean).map(pinText);
    state.pins = [...new Set(texts)].slice(-MOST);
    refreshButtons();
    const pins = state.pins.map(readPin);
    if (!pins.length || !run) {
      this.#clear();
      this.root.hidden = true;
      return;
    }
    const known = await this.#known(pins, signal);
    const made = await Promise.all(pins.map((pin) => makePinned(pin, this.page, known, signal)));
    this.#clear();
    this.root.hidden = false;
    this.charts = made;
    made.forEach((chart, index) => {
      chart.heading.append(pinButton(this.page, pins[index], chart.title));
      this.root.append(chart.root);
    });
    // Of one height, which is that of the tallest.
    for (const chart of made) chart.show();
    this.setCursor(null);
  }

  setCursor(step) {
    for (const chart of this.charts) chart.setCursor(step);
  }

  layout() {
    for (const chart of this.charts) chart.resize();
  }

  draw() {
    for (const chart of this.charts) chart.draw();
  }

  // The paths of the run's variables, where a pin needs them.
  async #known(pins, signal) {
    if (pins.every(({kind}) => kind !== 'layers')) return new Set();
    const {run} = this.page;
    const key = JSON.stringify([run.name, run.variables, run.tags]);
    if (key !== this.knownKey) {
      const {variables} = await askJson('variables', {run: run.name}, signal);
      this.known = new Set(variables.map(({path}) => path));
      this.knownKey = key;
    }
    return this.known;
  }

  #clear() {
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
    this.root.replaceChildren();
  }
}
