// The charts of the layers' view: one for each statistic, under one cursor, with the exact values
// of every layer at the pointer.

import {element} from './dom.js';
import {count, exact} from './format.js';
import {swatch} from './layercolors.js';
import {pathLabel} from './layerpicker.js';
import {LineChart} from './linechart.js';
import {knownSmoothing} from './smoothing.js';

const ARRAYS = ['minimum', 'mean', 'maximum', 'nonfinite'];

export class ChartGrid {
  /**
   * @param {{onPoint: function(?Node[], number, number, boolean), onCursor: function(?number),
   *     onZoom: function(?number[])}} listeners `onPoint` gets what to tell at a page's point, and
   *     whether to say it; cursor and zoom are in steps.
   * @param {function(object): Element} pin Makes the button that pins a statistic's chart.
   */
  constructor({onPoint, onCursor, onZoom}, pin) {
    this.pin = pin;
    this.onPoint = onPoint;
    this.onCursor = onCursor;
    this.onZoom = onZoom;
    this.grid = element('div', {class: 'chart-grid'});
    this.note = element('p', {class: 'quiet', role: 'status'});
    this.root = element('section', {aria: {label: 'Lines'}}, this.grid, this.note);
    this.charts = new Map();
    this.shown = [];
  }

  /** Shows an answer of `series`; `places` are the layers', `state` has scale and smoothing. */
  show(horizontal, answer, places, state) {
    this.horizontal = horizontal;
    const options = {scale: state.scale, smoothing: knownSmoothing(state.smoothing)};
    const found = answer.statistics.map((statistic, index) => [
      statistic, this.#lines(answer, index, places)]).filter(([, lines]) => lines.length);
    // Nearly always 0 from end to end, which a sentence says in less room.
    const spoilt = found.find(([{name}]) => name === 'nonfinite');
    const sound = spoilt && spoilt[1].every(({maximum}) => maximum.every((value) => !(value > 0)));
    const drawn = found.filter((item) => !(sound && item === spoilt));
    this.note.textContent = !found.length
      ? 'Nothing was recorded of these layers.'
      : sound ? 'No element of a gradient was NaN or infinite in these steps.' : '';
    this.#arrange(drawn.map(([{name}]) => name));
    drawn.forEach(([statistic, lines]) => {
      const chart = this.charts.get(statistic.name);
      chart.setPin(this.pin(statistic));
      chart.show(horizontal, statistic, lines, options);
    });
  }

  setSmoothing(smoothing) {
    for (const chart of this.shown) chart.setSmoothing(smoothing);
  }

  /** Puts the cursor of all charts at a column, or takes it away for -1. */
  setCursor(column) {
    for (const chart of this.shown) {
      if (chart !== this.source) chart.setCursor(column);
    }
  }

  resize() {
    for (const chart of this.shown) chart.resize();
  }

  draw() {
    for (const chart of this.shown) chart.draw();
  }

  clear() {
    this.#arrange([]);
    this.note.textContent = '';
  }

  #lines(answer, index, places) {
    const {columns} = this.horizontal;
    const {length} = answer.statistics;
    const lines = answer.variables.map((path, row) => {
      const start = (row * length + index) * columns;
      const values = Object.fromEntries(ARRAYS.map((array) =>
        [array, answer[array].values.subarray(start, start + columns)]));
      return {path, place: places.get(path), ...values};
    });
    return lines.filter(({mean, nonfinite}) => mean.some((value) => !Number.isNaN(value)) ||
      nonfinite.some((amount) => amount > 0));
  }

  // Charts that stay keep their elements, with focus and scrolling.
  #arrange(names) {
    for (const chart of this.shown) chart.destroy();
    for (const name of names) {
      if (!this.charts.has(name)) {
        this.charts.set(name, new LineChart({
          onPoint: (...told) => this.#point(...told), onZoom: this.onZoom,
        }));
      }
    }
    const shown = names.map((name) => this.charts.get(name));
    for (const chart of this.shown) if (!shown.includes(chart)) chart.root.remove();
    shown.forEach(({root}, place) => {
      const there = this.grid.children[place];
      if (there !== root) this.grid.insertBefore(root, there || null);
    });
    this.shown = shown;
  }

  #point(chart, column, at, keyboard) {
    this.source = keyboard ? null : chart;
    if (column === null) {
      this.source = null;
      this.onCursor(null);
      this.onPoint(null);
      return;
    }
    chart.column = column;
    this.onCursor(this.horizontal.steps.middle[column]);
    this.onPoint(this.#told(chart, column), at.x, at.y, keyboard);
  }

  #told({statistic, lines, smoothed}, column) {
    const {bucketed} = this.horizontal.steps;
    const smooth = lines.some((_, index) => smoothed[index]);
    const headings = [
      '', ...(bucketed ? ['Mean', 'Minimum', 'Maximum'] : ['Value']),
      ...(smooth ? ['Smoothed'] : []),
    ];
    const rows = lines.map((line, index) => {
      const missing = !line.nonfinite[column] && Number.isNaN(line.mean[column]);
      // Where no record is finite, the minimum tells NaN from infinity.
      const one = line.nonfinite[column] ? line.minimum[column] : line.mean[column];
      const values = missing ? ['not recorded']
        : bucketed ? ['mean', 'minimum', 'maximum'].map((name) => exact(line[name][column]))
          : [exact(one)];
      if (smooth && !missing) values.push(exact(smoothed[index][column]));
      const broken = bucketed && line.nonfinite[column]
        ? ` ${count(line.nonfinite[column], 'record')} not finite` : null;
      return element(
        'tr', {},
        element('th', {scope: 'row'}, element(
          'div', {}, swatch(line.place), pathLabel(line.path),
          broken && element('span', {class: 'broken'}, broken))),
        ...values.map((value) => element('td', {}, value)));
    });
    return [
      element('div', {class: 'tooltip-title'}, statistic.label),
      element('div', {class: 'tooltip-when'}, this.horizontal.describe(column)),
      element(
        'table', {},
        element('thead', {}, element('tr', {}, ...headings.map((text) =>
          element('th', {scope: 'col'}, text)))),
        element('tbody', {}, ...rows)),
    ];
  }
}
