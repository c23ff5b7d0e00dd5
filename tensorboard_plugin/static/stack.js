// Charts one above the other on one axis of steps, with one cursor through all of them.

import {drawAxis} from './axis.js';
import {element} from './dom.js';
import {NUMBERS_WIDTH} from './plot.js';

const AXIS_HEIGHT = 24;

// What a screen reader is told at a step need not be longer.
const MOST_LETTERS = 600;

// Above this height a row's heading stays in sight while the row is scrolled.
const TALL = 250;

const ZOOM_KEYS = {'+': 0.5, '=': 0.5, '-': 2, _: 2};

/** The four arrays of one row of an answer, by name: `columns` values each. */
export function rowOf(answer, row, columns) {
  const values = {};
  for (const name of ['minimum', 'mean', 'maximum', 'nonfinite']) {
    values[name] = answer[name].values.subarray(row * columns, (row + 1) * columns);
  }
  return values;
}

export class Stack {
  /**
   * @param {{onCursor: function(?number), onRange: function(?number[])}} listeners The cursor is a
   *     step; a range is `[first, last]` step, or null for all.
   */
  constructor({onCursor, onRange}) {
    this.onCursor = onCursor;
    this.onRange = onRange;
    // For charts: what a drag from one step to another asks for.
    this.listeners = {
      onCursor,
      onZoom: (low, high) => {
        const range = this.axis.recordsWithin(low, high);
        if (range) onRange(range);
      },
    };
    this.rows = element('div', {class: 'stack-rows'});
    this.step = element('span', {class: 'stack-step'}, 'Step');
    this.canvas = element('canvas', {class: 'axis'});
    this.handle = element(
      'div', {class: 'stack-handle', tabIndex: 0, role: 'slider',
        title: 'Arrow keys move the cursor, + and − zoom around it, 0 shows all steps',
        aria: {label: 'Cursor over the steps'}}, this.canvas);
    this.axisRow = element('div', {class: 'stack-axis'}, this.step, this.handle);
    this.root = element('div', {class: 'stack'}, this.rows, this.axisRow);
    this.handle.addEventListener('keydown', (event) => this.#key(event));
    this.charts = [];
    this.column = null;
  }

  /**
   * @param {StepAxis} axis Shared by all charts.
   * @param {Array<{name: string, label: string, description: string, height: number,
   *     make: function(Element): object, readout: function(?number): Node[], pin: ?Element}>} rows
   *     Each makes its chart (with `show`, `setCursor`, `draw`, `resize` and `destroy`) in the box
   *     for it; `readout` says its numbers in a column, or the last ones where that is null.
   */
  show(axis, rows) {
    this.clear();
    this.axis = axis;
    for (const {name, label, description, height, make, readout, pin = null} of rows) {
      const value = element('div', {class: 'value'});
      const plot = element('div', {class: 'plot'});
      const row = element(
        'section', {class: height > TALL ? 'stack-row tall' : 'stack-row',
          dataset: {quantity: name}, aria: {label}},
        element('div', {class: 'heading', title: description},
          element('div', {class: 'name'}, label), value, pin),
        plot);
      row.style.height = `${height}px`;
      this.rows.append(row);
      this.charts.push({chart: make(plot), label, value, readout});
    }
    this.axisRow.hidden = !rows.length || !axis.columns;
    this.layout();
  }

  /** Fits the charts into the stack's width; shows those that had none yet. */
  layout() {
    if (!this.charts.length || !this.root.clientWidth) return;
    for (const {chart} of this.charts) {
      if (chart.shown) chart.resize();
      else {
        chart.show();
        chart.shown = true;
      }
    }
    this.#drawAxis();
    this.setCursor(null);
  }

  setCursor(step) {
    if (!this.axis || !this.axis.columns) return;
    const found = step === null ? -1 : this.axis.columnAt(step);
    this.column = found < 0 ? null : found;
    for (const {chart, value, readout} of this.charts) {
      chart.setCursor(this.column === null ? null : step);
      value.replaceChildren(...readout(this.column));
    }
    this.step.textContent = this.column === null ? 'Step' : this.axis.name(this.column);
    this.#tell();
  }

  draw() {
    for (const {chart} of this.charts) chart.draw();
    this.#drawAxis();
  }

  clear() {
    for (const {chart} of this.charts) chart.destroy();
    this.charts = [];
    this.rows.replaceChildren();
  }

  #drawAxis() {
    const width = this.handle.clientWidth;
    if (width > 0 && this.axis && this.axis.columns) {
      drawAxis(this.canvas, this.axis, width, AXIS_HEIGHT);
    }
  }

  #tell() {
    const {axis, column} = this;
    const at = column === null ? axis.columns - 1 : column;
    const said = this.charts.map(({label, value}) => `${label} ${value.innerText}`);
    const text = `${axis.name(at)}: ${said.join('; ')}`.replace(/\s+/g, ' ');
    for (const [name, value] of [
      ['valuemin', axis.first[0]], ['valuemax', axis.last[axis.columns - 1]],
      ['valuenow', axis.first[at]], ['valuetext', text.slice(0, MOST_LETTERS)],
    ]) {
      this.handle.setAttribute(`aria-${name}`, value);
    }
  }

  #key(event) {
    const {axis, column} = this;
    if (!axis || !axis.columns || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = axis.columns - 1;
    const stride = event.shiftKey ? Math.max(1, Math.round(axis.columns / 20)) : 1;
    const at = column === null ? last : column;
    const goes = {
      ArrowLeft: at - stride, ArrowRight: at + stride, PageDown: at - axis.columns / 10,
      PageUp: at + axis.columns / 10, Home: 0, End: last,
    };
    if (event.key in goes) {
      const next = Math.round(Math.max(0, Math.min(last, goes[event.key])));
      this.onCursor(axis.middle[next]);
    } else if (event.key === 'Escape') {
      this.onCursor(null);
    } else if (event.key in ZOOM_KEYS) {
      const half = ZOOM_KEYS[event.key] * (axis.high - axis.low) / 2;
      const ends = [axis.middle[at] - half, axis.middle[at] + half];
      if (half < (axis.high - axis.low) / 2) this.listeners.onZoom(...ends);
      // Farther than what is read, the server knows which steps there are.
      else this.onRange(ends.map((step) => Math.max(0, Math.round(step))));
    } else if (event.key === '0') {
      this.onRange(null);
    } else return;
    event.preventDefault();
  }
}

/** Columns that suit a stack of that many pixels, within the server's limits. */
export function wantedColumns({width, limits, rows = 1, heading}) {
  const pixels = Math.max(100, width - heading - NUMBERS_WIDTH);
  const most = Math.min(limits.columns, Math.floor(limits.cells / Math.max(1, rows)));
  return Math.max(1, Math.min(pixels, most));
}
