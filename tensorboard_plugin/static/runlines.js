// The quantities of several runs as a whole, a small chart each, on one axis of steps or time.

import {CommonAxis} from './comparison.js';
import {element} from './dom.js';
import {exact, whole} from './format.js';
import {Horizontal, duration} from './horizontal.js';
import {Overlay} from './overlay.js';

// Shown at once; the others on demand.
const FIRST = ['loss', 'learning_rate', 'gradient_norm'];

const TITLES = {
  step: 'The runs as a whole, over steps',
  relative: 'The runs as a whole, over the time since each one\u2019s first record',
};

export class RunLines {
  /**
   * @param {{onPoint: function(?number, object, string, Array, boolean),
   *     onZoom: function(?number[])}} listeners `onPoint` gets a place of the axis, a point of the
   *     page, a title and lines `[label, text, place of the run]` for a tooltip, and whether the
   *     keyboard moved.
   * @param {function(object): Element} pin Makes the button that pins a quantity's chart.
   * @param {...Node} controls For the heading.
   */
  constructor(listeners, pin, ...controls) {
    this.pin = pin;
    this.listeners = listeners;
    this.overlays = [];
    this.title = element('h2', {});
    this.grid = element('div', {class: 'overlays'});
    this.more = element('button', {
      class: 'link', type: 'button',
      onclick: () => {
        this.unfolded = !this.unfolded;
        this.#draw();
      },
    });
    this.constant = element('p', {class: 'quiet'});
    this.root = element(
      'section', {},
      element(
        'div', {class: 'compare-head'}, this.title,
        element('div', {class: 'compare-controls'}, ...controls)),
      this.grid, element('div', {class: 'overlays-foot'}, this.more, this.constant));
  }

  /**
   * @param {Array<{name: string, place: number, steps: ?object}>} answers With answers of `steps`.
   * @param {string} horizontal As in the state; what is not "step" is relative time.
   * @param {Map<string, number>} begins Wall time of each run's first record.
   */
  show(answers, horizontal, begins) {
    this.kind = horizontal === 'step' ? 'step' : 'relative';
    this.title.textContent = TITLES[this.kind];
    this.parts = answers.filter(({steps}) => steps && steps.records).map((part) => ({
      ...part,
      horizontal: new Horizontal(
        this.kind, part.steps, begins.get(part.name) ?? Number(part.steps.first_wall_time[0])),
    }));
    this.#draw();
  }

  /** Puts the cursor at a step, where the axis is one of steps. */
  setStep(step) {
    if (this.kind === 'step') this.#setCursor(step);
  }

  resize() {
    for (const overlay of this.overlays) overlay.resize();
  }

  draw() {
    for (const overlay of this.overlays) overlay.draw();
  }

  // Each quantity that any run has; those that never change in any are said in a sentence.
  #draw() {
    for (const overlay of this.overlays) overlay.destroy();
    const {parts} = this;
    this.axis = new CommonAxis(parts.map(({horizontal}) => horizontal));
    const all = new Map(parts.flatMap(({steps}) => steps.quantities.map((one) => [one.name, one])));
    const order = new Set([...FIRST.filter((name) => all.has(name)), ...all.keys()]);
    const constant = [];
    const shown = [...order].map((name) => ({quantity: all.get(name), lines: linesOf(parts, name)}))
      .filter(({quantity, lines}) => {
        const value = onlyValue(lines);
        if (value !== null) constant.push(`${quantity.label} (${exact(value)})`);
        return lines.length && value === null;
      });
    const visible = this.unfolded ? shown : shown.slice(0, FIRST.length);
    this.overlays = visible.map(() => new Overlay({
      onPoint: (...given) => this.#point(...given), onZoom: this.listeners.onZoom,
    }));
    this.grid.replaceChildren(...this.overlays.map(({root}) => root));
    // uPlot measures its box, so it comes once the box has its place.
    this.overlays.forEach((overlay, index) => {
      const {quantity, lines} = visible[index];
      overlay.heading.append(this.pin(quantity));
      overlay.show(this.axis, quantity, lines);
    });
    const more = shown.length - FIRST.length;
    this.more.hidden = more <= 0;
    this.more.textContent = this.unfolded ? 'Show fewer' : `Show ${more} more`;
    this.more.setAttribute('aria-expanded', Boolean(this.unfolded));
    this.constant.textContent = constant.length
      ? `The same in all of these runs and steps: ${constant.join(', ')}.` : '';
  }

  #point(overlay, place, point, keyboard) {
    this.#setCursor(place);
    if (place === null) {
      this.listeners.onPoint(null);
      return;
    }
    const step = this.kind === 'step';
    const lines = overlay.lines.map((line) => {
      const value = overlay.valueAt(line, place);
      return [line.name, value === undefined ? '\u2013' : exact(value), line.place];
    });
    const at = [step ? 'Step' : 'Time', step ? whole(place) : duration(place)];
    this.listeners.onPoint(place, point, overlay.quantity.label, [at, ...lines], keyboard);
  }

  #setCursor(place) {
    for (const overlay of this.overlays) overlay.setCursor(place);
  }
}

function linesOf(parts, name) {
  return parts.flatMap(({steps, horizontal, place, name: run}) => {
    const index = steps.quantities.findIndex((quantity) => quantity.name === name);
    if (index < 0) return [];
    const line = {name: run, place, horizontal};
    for (const array of ['minimum', 'mean', 'maximum', 'nonfinite']) {
      const {columns} = horizontal;
      line[array] = steps[array].values.subarray(index * columns, (index + 1) * columns);
    }
    const recorded = line.mean.some((value) => !Number.isNaN(value)) ||
      line.nonfinite.some((amount) => amount > 0);
    return recorded ? [line] : [];
  });
}

// The value that all lines have all along, or null.
function onlyValue(lines) {
  const value = lines[0]?.mean.find((one) => !Number.isNaN(one));
  if (value === undefined || !Number.isFinite(value)) return null;
  const same = lines.every(({minimum, maximum, mean, nonfinite}) =>
    mean.every((one, column) => !nonfinite[column] &&
      (Number.isNaN(one) || (minimum[column] === value && maximum[column] === value))));
  return same ? value : null;
}
