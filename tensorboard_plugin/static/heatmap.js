// The heatmap: layers down, recorded steps across, one statistic as colour.
//
// Labels are elements, so that they can be focused and read; cells are one canvas. Both hold what
// can be seen, and are made again on every scroll.

import {drawAxis} from './axis.js';
import {paintCells} from './heatcells.js';
import {element} from './dom.js';
import {summarise} from './groups.js';
import {LABEL_WIDTH, Labels} from './labels.js';
import {flatRows} from './tree.js';

export {LABEL_WIDTH};

const ROW_HEIGHT = {least: 16, most: 28};
const AXIS_HEIGHT = 24;

// A pointer that moves less between press and release has clicked.
const LEAST_DRAG = 5;

export class Heatmap {
  /**
   * @param {{onHover: function(?{row: number, group: ?Group, column: number, x: number,
   *     y: number}), onSelect: function(number), onToggle: function(Group, boolean),
   *     onZoom: function(number, number)}} listeners Rows are rows of the answer; a group is to be
   *     opened or not; a zoom is from step to step.
   */
  constructor({onHover, onSelect, onToggle = () => {}, onZoom}) {
    this.onHover = onHover;
    this.onZoom = onZoom;
    this.labels = new Labels({
      onChoose: (place) => onSelect(this.shown[place].row),
      onToggle: (place) => onToggle(this.shown[place].group, !this.shown[place].open),
    });
    this.canvas = element('canvas', {class: 'cells'});
    this.cursor = element('div', {class: 'cursor', hidden: true});
    this.marker = element('div', {class: 'row-marker', hidden: true});
    this.range = element('div', {class: 'range', hidden: true});
    this.cells = element(
      'div', {class: 'cells-box'}, this.canvas, this.marker, this.range, this.cursor);
    this.scroller = element('div', {class: 'heat-scroller'}, this.labels.root, this.cells);
    this.axisCanvas = element('canvas', {class: 'axis'});
    this.axisRow = element(
      'div', {class: 'axis-row'},
      element('span', {class: 'axis-name'}, 'Step'), this.axisCanvas);
    this.root = element('div', {class: 'heat'}, this.scroller, this.axisRow);
    this.shown = [];
    this.means = new Map();
    this.#listen();
  }

  /**
   * Shows an answer of `heatmap`.
   * @param {object} answer
   * @param {StepAxis} axis
   * @param {object} scale Of `colorScale`.
   * @param {Array<Row|number>} rows In order: rows of `tree.js`, or numbers of the answer's rows.
   */
  show(answer, axis, scale, rows) {
    if (answer !== this.answer) this.means.clear();
    Object.assign(this, {answer, axis, scale});
    this.shown = rows.length && typeof rows[0] === 'number' ? flatRows(rows) : rows;
    const labels = JSON.stringify(this.shown.map(({row, group, open, level}) =>
      [group ? group.prefix : answer.variables[row], row, open, level]));
    if (labels !== this.shownLabels) this.labels.show(this.shown, answer.variables);
    this.shownLabels = labels; // Kept otherwise, with what is focused.
  }

  /** Fits the rows into a height and draws. */
  layout(height) {
    const rows = Math.max(1, this.shown.length);
    const room = height - AXIS_HEIGHT;
    const {least, most} = ROW_HEIGHT;
    this.rowHeight = Math.floor(Math.max(least, Math.min(most, room / rows)));
    this.root.style.setProperty('--row-height', `${this.rowHeight}px`);
    const whole = Math.max(3, Math.floor(room / this.rowHeight));
    this.viewHeight = this.rowHeight * Math.min(rows, whole);
    this.scroller.style.height = `${this.viewHeight}px`;
    this.labels.layout(this.rowHeight, this.scroller.scrollTop, this.viewHeight);
    this.width = Math.max(50, this.scroller.clientWidth - LABEL_WIDTH);
    this.gutter = this.scroller.offsetWidth - this.scroller.clientWidth;
    this.draw();
  }

  /** How many rows fit into a height. */
  static fitting(height) {
    return Math.max(3, Math.floor((height - AXIS_HEIGHT) / ROW_HEIGHT.least));
  }

  /** Left and right of the cells inside the heatmap, in CSS pixels. */
  get insets() {
    return {left: LABEL_WIDTH, right: this.gutter};
  }

  /** Draws cells and axis with the theme's colours. */
  draw() {
    if (!this.answer || !this.width) return;
    drawAxis(this.axisCanvas, this.axis, this.width, AXIS_HEIGHT);
    this.#drawCells();
  }

  /** Puts the vertical cursor at a step, or takes it away. */
  setCursor(step) {
    const inside = step !== null && this.axis && step >= this.axis.low && step <= this.axis.high;
    this.cursor.hidden = !inside;
    if (inside) this.cursor.style.left = `${this.#x(step)}px`;
  }

  /** Marks a row of the answer as the one whose lines are open; -1 for none. */
  select(row) {
    this.labels.select(row);
  }

  /** Brings a row of the answer into sight, and gives it the focus if so wanted. */
  reveal(row, focus = false) {
    const place = this.shown.findIndex((one) => one.row === row && !one.group);
    if (place < 0) return;
    if (focus) this.labels.focus(place);
    const {scroller, rowHeight, viewHeight} = this;
    const top = place * rowHeight;
    if (top < scroller.scrollTop || top + rowHeight > scroller.scrollTop + viewHeight) {
      scroller.scrollTop = top - Math.floor(viewHeight / 2);
    }
  }

  #drawCells() {
    const {rowHeight, viewHeight: height, width} = this;
    const {scrollTop} = this.scroller;
    const first = Math.floor(scrollTop / rowHeight);
    const end = Math.min(this.shown.length, first + Math.ceil(height / rowHeight) + 1);
    const sources = this.shown.slice(first, end).map((row) => this.#source(row));
    const box = {width, height, top: first * rowHeight - scrollTop, rowHeight};
    paintCells(this.canvas, box, sources, this.axis, this.scale);
  }

  // An open group's row is empty: its members follow.
  #source({row, group, open}) {
    if (open) return null;
    if (!group) {
      const {mean, nonfinite} = this.answer;
      return {mean: mean.values, nonfinite: nonfinite.values, from: row * this.axis.columns};
    }
    let found = this.means.get(group);
    if (!found) {
      found = {...summarise(this.answer, group.rows), from: 0};
      this.means.set(group, found);
    }
    return found;
  }

  #x(step) {
    return ((step - this.axis.low) / (this.axis.high - this.axis.low)) * this.width;
  }

  #listen() {
    this.scroller.addEventListener('scroll', () => this.#scrolled(), {passive: true});
    this.#listenToDrags();
    this.cells.addEventListener('mousemove', (event) => this.#hover(event));
    this.cells.addEventListener('mouseleave', () => {
      this.marker.hidden = true;
      this.onHover(null);
    });
  }

  // A click opens a row; a drag across steps zooms into them.
  #listenToDrags() {
    let from = null;
    this.cells.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      from = this.#xAt(event);
      this.cells.setPointerCapture(event.pointerId);
    });
    this.cells.addEventListener('pointermove', (event) => {
      if (from === null) return;
      const x = this.#xAt(event);
      this.range.hidden = Math.abs(x - from) < LEAST_DRAG;
      this.range.style.left = `${Math.min(x, from)}px`;
      this.range.style.width = `${Math.abs(x - from)}px`;
    });
    this.cells.addEventListener('pointerup', (event) => {
      if (from === null) return;
      const [low, high] = [from, this.#xAt(event)].sort((a, b) => a - b);
      const dragged = !this.range.hidden;
      const place = this.#placeAt(event);
      from = null;
      this.range.hidden = true;
      if (dragged) this.onZoom(this.#step(low), this.#step(high));
      else if (place >= 0) this.labels.act(place);
    });
    this.cells.addEventListener('pointercancel', () => {
      from = null;
      this.range.hidden = true;
    });
  }

  #xAt(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    return Math.max(0, Math.min(this.width, x));
  }

  #step(x) {
    return this.axis.low + (x / this.width) * (this.axis.high - this.axis.low);
  }

  // Once a frame, however many times the browser tells of it.
  #scrolled() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (!this.answer || !this.width) return;
      this.labels.layout(this.rowHeight, this.scroller.scrollTop, this.viewHeight);
      this.#drawCells();
    });
  }

  #placeAt(event) {
    // Some events come in whole pixels; all of one point must mean one row.
    const y = Math.floor(event.clientY) - this.canvas.getBoundingClientRect().top + this.scroller.scrollTop;
    const place = Math.floor(y / this.rowHeight);
    return place >= 0 && place < this.shown.length ? place : -1;
  }

  #hover(event) {
    const place = this.#placeAt(event);
    const column = this.axis.columnAt(this.#step(this.#xAt(event)));
    this.marker.hidden = place < 0;
    if (place < 0 || column < 0) {
      this.onHover(null);
      return;
    }
    this.marker.style.top = `${place * this.rowHeight - this.scroller.scrollTop}px`;
    const {row, group} = this.shown[place];
    this.onHover({row, group, column, x: event.clientX, y: event.clientY});
  }
}
