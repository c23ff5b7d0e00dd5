// The panel of one layer: what the variable is, and a line for each of its statistics.

import {StepAxis} from './axis.js';
import {element} from './dom.js';
import {bytes, exact, number, whole} from './format.js';
import {Line} from './lines.js';
import {pinButton} from './pins.js';

// The first lines answer "does it learn at a sound pace?"; the rest follow in the run's order.
const FIRST = ['update_ratio', 'gradient_norm', 'update_norm', 'weight_norm'];

/** Statistics in the order in which the panel shows them. */
export function panelOrder(statistics) {
  const place = ({name}) => {
    const index = FIRST.indexOf(name);
    if (index >= 0) return index;
    return name.startsWith('slot/') ? FIRST.length : FIRST.length + 1;
  };
  return [...statistics].sort((a, b) => place(a) - place(b));
}

export class LayerPanel {
  /**
   * @param {{onClose: function(), onCursor: function(?number), onZoom: function(number, number)}}
   *     listeners
   */
  constructor({page, onClose, ...listeners}) {
    this.page = page;
    this.listeners = listeners;
    this.title = element('h2', {});
    this.facts = element('p', {class: 'facts'});
    this.body = element('div', {class: 'layer-lines'});
    const more = element(
      'button', {class: 'link', type: 'button',
        onclick: () => page.change({view: 'layers', layers: [this.path]})}, 'Open in Layers');
    const close = element(
      'button', {class: 'close', type: 'button', title: 'Close (Escape)',
        aria: {label: 'Close the layer'}, onclick: onClose}, '×');
    this.root = element(
      'aside', {class: 'layer', hidden: true, aria: {label: 'Layer'}},
      element('header', {}, this.title, close), this.facts, more, this.body);
    this.root.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') onClose();
    });
    this.lines = [];
  }

  /** Opens the panel for a variable, its lines still to come. */
  open(variable) {
    if (this.path !== variable.path) this.#clear('Reading this layer’s lines…');
    this.path = variable.path;
    this.title.textContent = variable.path;
    const slots = Object.entries(variable.slots).map(([name, slot]) =>
      (slot && slot.bytes ? `${name}\u00a0${bytes(slot.bytes)}` : name));
    this.facts.textContent = [
      variable.shape.length ? variable.shape.map(whole).join('\u00a0×\u00a0') : 'scalar',
      `${whole(variable.parameters)}\u00a0parameters`,
      variable.dtype,
      variable.trainable ? null : 'not trained',
      slots.length ? `slots: ${slots.join(', ')}` : 'no slots',
    ].filter(Boolean).join(' · ');
    this.root.hidden = false;
  }

  close() {
    this.#clear('');
    this.path = null;
    this.root.hidden = true;
  }

  /** Shows an answer of `series` for the open variable; `range` is the heatmap's axis. */
  show(answer, range) {
    const top = this.root.scrollTop;
    this.#clear('');
    const axis = new StepAxis(answer);
    answer.statistics.forEach((statistic, index) => {
      const values = {};
      for (const array of ['minimum', 'mean', 'maximum', 'nonfinite']) {
        const {columns} = axis;
        values[array] = answer[array].values.subarray(index * columns, (index + 1) * columns);
      }
      const recorded = values.mean.some((mean) => !Number.isNaN(mean)) ||
        values.nonfinite.some((amount) => amount > 0);
      if (!recorded) return;
      const value = element('span', {class: 'value'});
      const plot = element('div', {class: 'plot'});
      this.body.append(element(
        'section', {class: 'layer-line', dataset: {statistic: statistic.name}},
        element(
          'div', {class: 'heading', title: statistic.description},
          element('span', {class: 'name'}, statistic.label), value,
          pinButton(
            this.page, {kind: 'layers', name: statistic.name, of: [this.path]},
            `${statistic.label} of ${this.path}`)),
        plot));
      const line = new Line(plot, {showSteps: true, ...this.listeners});
      line.show(axis, statistic, values, range);
      this.lines.push({line, value});
    });
    if (!this.lines.length) this.#clear('Nothing was recorded of this layer.');
    this.root.scrollTop = top;
    this.setCursor(null);
  }

  /** Says in words why there are no lines. */
  fail(message) {
    this.#clear(message);
  }

  setCursor(step) {
    for (const {line, value} of this.lines) {
      line.setCursor(step);
      const at = line.valueAt(step);
      value.textContent = at === undefined ? '' : step === null ? number(at) : exact(at);
    }
  }

  resize() {
    for (const {line} of this.lines) line.resize();
  }

  draw() {
    for (const {line} of this.lines) line.draw();
  }

  #clear(message) {
    for (const {line} of this.lines) line.destroy();
    this.lines = [];
    this.body.replaceChildren(...(message ? [element('p', {class: 'quiet'}, message)] : []));
  }
}
