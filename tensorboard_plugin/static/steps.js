// The lines below the heatmap: loss and learning rate of the run as a whole, on the same steps.

import {element} from './dom.js';
import {exact, number} from './format.js';
import {Line} from './lines.js';
import {NUMBERS_WIDTH} from './plot.js';

const SHOWN = ['loss', 'learning_rate'];
const HEIGHT = {least: 84, most: 170};

export class StepLines {
  /** @param {{onCursor: function(?number), onZoom: function(number, number)}} listeners */
  constructor(listeners) {
    this.listeners = listeners;
    this.root = element('div', {class: 'step-lines'});
    this.lines = [];
  }

  /** The height that all lines like to have. */
  static get height() {
    return SHOWN.length * HEIGHT.least;
  }

  /** Shows an answer of `steps`; `axis` is its own, `range` the heatmap's. */
  show(answer, axis, range) {
    this.clear();
    const columns = axis.columns;
    SHOWN.forEach((name) => {
      const index = answer.quantities.findIndex((quantity) => quantity.name === name);
      if (index < 0) return;
      const quantity = answer.quantities[index];
      const values = {};
      for (const array of ['minimum', 'mean', 'maximum', 'nonfinite']) {
        values[array] = answer[array].values.subarray(index * columns, (index + 1) * columns);
      }
      const value = element('span', {class: 'value'});
      const plot = element('div', {class: 'plot'});
      const heading = element(
        'div', {class: 'heading', title: quantity.description},
        element('span', {class: 'name'}, quantity.label), value);
      this.root.append(element('div', {class: 'step-line'}, heading, plot));
      const line = new Line(plot, {showSteps: false, ...this.listeners});
      this.lines.push({line, value, show: () => line.show(axis, quantity, values, range)});
    });
  }

  /** Fits the lines into a height, their plots between the insets of the heatmap's cells. */
  layout(height, {left, right}) {
    const each = height / Math.max(1, this.lines.length);
    const rounded = Math.floor(Math.max(HEIGHT.least, Math.min(HEIGHT.most, each)));
    this.root.style.setProperty('--line-height', `${rounded}px`);
    this.root.style.setProperty('--heading-width', `${left - NUMBERS_WIDTH}px`);
    this.root.style.paddingRight = `${right}px`;
    for (const {line, show} of this.lines) {
      if (line.plot) line.resize();
      else show();
    }
    this.setCursor(null);
  }

  setCursor(step) {
    for (const {line, value} of this.lines) {
      line.setCursor(step);
      const at = line.valueAt(step);
      value.textContent = at === undefined ? '' : step === null ? number(at) : exact(at);
    }
  }

  draw() {
    for (const {line} of this.lines) line.draw();
  }

  clear() {
    for (const {line} of this.lines) line.destroy();
    this.lines = [];
    this.root.replaceChildren();
  }
}
