// Charts that stay at the top of every view: of a layer's statistic, or of the run as a whole.

import {askArrays, askJson} from './api.js';
import {StepAxis} from './axis.js';
import {element} from './dom.js';
import {exact, number} from './format.js';
import {Line} from './lines.js';

// As many fit beside each other; more would leave the views no room.
const MOST = 6;
const COLUMNS = 300;
const ARRAYS = ['minimum', 'mean', 'maximum', 'nonfinite'];

/** A pin as the state keeps it; `layer` is null for a quantity of the whole run. */
export function pinOf(layer, statistic) {
  return JSON.stringify([layer, statistic]);
}

// `[layer, statistic]` of a pin, or null where an address holds something else.
function read(pin) {
  try {
    const found = JSON.parse(pin);
    const texts = Array.isArray(found) && found.length === 2 && typeof found[1] === 'string';
    return texts && (found[0] === null || typeof found[0] === 'string') ? found : null;
  } catch {
    return null;
  }
}

/** A button that pins a chart, and takes the pin away where it is pinned. */
export function pinButton(page, layer, statistic, label) {
  const pin = pinOf(layer, statistic);
  const pinned = () => page.state.pins.includes(pin);
  const button = element('button', {
    class: 'pin', type: 'button', dataset: {pin},
    onclick: () => page.pins.toggle(pin),
  });
  const show = () => {
    const text = `${pinned() ? 'Unpin' : 'Pin'} ${label}`;
    button.setAttribute('aria-pressed', pinned());
    button.setAttribute('aria-label', text);
    button.title = pinned() ? 'Take away from the top' : 'Keep at the top of every view';
  };
  button.append(icon());
  show();
  button.refresh = show;
  return button;
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
    for (const button of document.querySelectorAll('button.pin')) button.refresh();
    const had = this.root.hidden;
    await this.load();
    if (had !== this.root.hidden) this.page.view.layout();
  }

  /** Asks for what is pinned, and shows it. */
  async load(signal = undefined) {
    const {run, state} = this.page;
    const pins = [...new Set(state.pins)].map(read).filter(Boolean).slice(-MOST);
    if (!pins.length || !run) {
      this.#clear();
      this.root.hidden = true;
      return;
    }
    const known = await this.#known(pins, signal);
    const found = await Promise.all(pins.map((pin) => this.#ask(pin, known, signal)));
    this.#clear();
    this.root.hidden = false;
    pins.forEach((pin, index) => this.#show(pin, found[index]));
    this.setCursor(null);
  }

  setCursor(step) {
    for (const {line, value} of this.charts) {
      line.setCursor(step);
      const at = line.valueAt(step);
      value.textContent = at === undefined ? '' : step === null ? number(at) : exact(at);
    }
  }

  layout() {
    for (const {line} of this.charts) line.resize();
  }

  draw() {
    for (const {line} of this.charts) line.draw();
  }

  // The paths of the run's variables, where a pin needs them.
  async #known(pins, signal) {
    if (pins.every(([layer]) => layer === null)) return new Set();
    const {run} = this.page;
    const key = JSON.stringify([run.name, run.variables, run.tags]);
    if (key !== this.knownKey) {
      const {variables} = await askJson('variables', {run: run.name}, signal);
      this.known = new Set(variables.map(({path}) => path));
      this.knownKey = key;
    }
    return this.known;
  }

  // The chart's `{axis, statistic, values}`, or a sentence where the run has no such thing.
  async #ask([layer, statistic], known, signal) {
    const {run, state} = this.page;
    if (layer !== null && !known.has(layer)) return 'Not in this run';
    const missing = 'Not recorded in this run';
    if (layer !== null && !run.statistics.some(({name}) => name === statistic)) return missing;
    const asked = {run: run.name, columns: COLUMNS, start: state.start, end: state.end};
    const answer = layer === null ? await askArrays('steps', asked, signal)
      : await askArrays('series', {...asked, variable: layer, statistic}, signal);
    const listed = layer === null ? answer.quantities : answer.statistics;
    const index = listed.findIndex(({name}) => name === statistic);
    if (index < 0 || !answer.records) return missing;
    const axis = new StepAxis(answer);
    const values = Object.fromEntries(ARRAYS.map((name) => [name,
      answer[name].values.subarray(index * axis.columns, (index + 1) * axis.columns)]));
    return {axis, statistic: listed[index], values};
  }

  #show([layer, name], found) {
    const missing = typeof found === 'string';
    const label = missing ? name : found.statistic.label;
    const value = element('span', {class: 'value'});
    const plot = element('div', {class: 'plot'}, ...(missing ? [found] : []));
    this.root.append(element(
      'figure', {class: missing ? 'pinned missing' : 'pinned'},
      element(
        'figcaption', {title: layer === null ? label : `${label} of ${layer}`},
        element('span', {class: 'name'}, label),
        element('span', {class: 'of'}, layer === null ? 'whole run' : layer),
        value, pinButton(this.page, layer, name, `${label} of ${layer ?? 'the run'}`)),
      plot));
    if (missing) return;
    const {page} = this;
    const line = new Line(plot, {
      showSteps: true,
      onCursor: (step) => page.setCursor(step),
      onZoom: (low, high) => {
        const range = found.axis.recordsWithin(low, high);
        if (range) page.zoom(range);
      },
    });
    line.show(found.axis, found.statistic, found.values);
    this.charts.push({line, value});
  }

  #clear() {
    for (const {line} of this.charts) line.destroy();
    this.charts = [];
    this.root.replaceChildren();
  }
}
