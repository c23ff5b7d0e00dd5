// The heatmap: layers down, recorded steps across, one statistic as colour.
//
// Labels are elements, one a row, so that they can be focused and read; cells are one canvas as
// large as what can be seen, drawn again on every scroll.

import {drawAxis} from './axis.js';
import {NOT_FINITE, PALETTE, ZERO, rgb} from './colors.js';
import {CANVAS_FONT, css, element, prepare} from './dom.js';
import {shorten} from './paths.js';

const ROW_HEIGHT = {least: 16, most: 28};
const LABEL_FONT = CANVAS_FONT.replace('11px', '12px');

/** Width of the rows' labels, as in the style sheet. */
export const LABEL_WIDTH = 240;
const AXIS_HEIGHT = 24;

// A pointer that moves less between press and release has clicked.
const LEAST_DRAG = 5;

// What a cell shows besides a place on the colour scale.
const CELL = {missing: -1, notFinite: -2, zero: -3};

export class Heatmap {
  /**
   * @param {{onHover: function(?{row: number, column: number, x: number, y: number}),
   *     onSelect: function(number), onZoom: function(number, number)}} listeners Rows are rows
   *     of the answer; a zoom is from step to step.
   */
  constructor({onHover, onSelect, onZoom}) {
    this.onHover = onHover;
    this.onSelect = onSelect;
    this.onZoom = onZoom;
    this.labels = element('div', {class: 'labels', role: 'listbox', aria: {label: 'Layers'}});
    this.canvas = element('canvas', {class: 'cells'});
    this.cursor = element('div', {class: 'cursor', hidden: true});
    this.marker = element('div', {class: 'row-marker', hidden: true});
    this.range = element('div', {class: 'range', hidden: true});
    this.cells = element(
      'div', {class: 'cells-box'}, this.canvas, this.marker, this.range, this.cursor);
    this.scroller = element('div', {class: 'heat-scroller'}, this.labels, this.cells);
    this.axisCanvas = element('canvas', {class: 'axis'});
    this.axisRow = element(
      'div', {class: 'axis-row'},
      element('span', {class: 'axis-name'}, 'Step'), this.axisCanvas);
    this.root = element('div', {class: 'heat'}, this.scroller, this.axisRow);
    this.shown = [];
    this.selected = -1;
    this.#listen();
  }

  /** Shows an answer of `heatmap`: `rows` are the answer's rows to show, in order. */
  show(answer, axis, scale, rows) {
    this.answer = answer;
    this.axis = axis;
    this.scale = scale;
    this.shown = rows;
    const paths = JSON.stringify(rows.map((row) => [row, answer.variables[row]]));
    if (paths !== this.paths) this.#label(); // Kept otherwise, with what is focused.
    this.paths = paths;
    this.#mark();
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
    this.width = Math.max(50, this.scroller.clientWidth - this.labels.offsetWidth);
    this.gutter = this.scroller.offsetWidth - this.scroller.clientWidth;
    this.draw();
  }

  /** Left and right of the cells inside the heatmap, in CSS pixels. */
  get insets() {
    return {left: this.labels.offsetWidth, right: this.gutter};
  }

  /** Draws cells and axis with the theme's colours. */
  draw() {
    if (!this.answer || !this.width) return;
    drawAxis(this.axisCanvas, this.axis, this.width, AXIS_HEIGHT);
    const context = prepare(this.canvas, this.width, this.viewHeight);
    const first = Math.floor(this.scroller.scrollTop / this.rowHeight);
    const rows = Math.min(
      this.shown.length - first, Math.ceil(this.viewHeight / this.rowHeight) + 1);
    if (rows <= 0 || !this.axis.columns) return;
    const pixels = this.canvas.width;
    const picture = new OffscreenCanvas(pixels, rows);
    const painter = picture.getContext('2d');
    const image = painter.createImageData(pixels, rows);
    const spans = this.#spans(pixels);
    for (let row = 0; row < rows; row += 1) {
      this.#paint(image.data, row * pixels * 4, this.shown[first + row], spans, pixels);
    }
    painter.putImageData(image, 0, 0);
    const top = first * this.rowHeight - this.scroller.scrollTop;
    context.imageSmoothingEnabled = false;
    context.fillStyle = this.#hatch(context);
    context.fillRect(0, 0, this.width, this.viewHeight);
    context.drawImage(picture, 0, top, this.width, rows * this.rowHeight);
    context.fillStyle = css('--page');
    for (let row = 0; row <= rows; row += 1) {
      context.fillRect(0, top + row * this.rowHeight - 1, this.width, 1);
    }
    this.#cross(context, first, rows, top);
  }

  /** Puts the vertical cursor at a step, or takes it away. */
  setCursor(step) {
    const inside = step !== null && this.axis && step >= this.axis.low && step <= this.axis.high;
    this.cursor.hidden = !inside;
    if (inside) this.cursor.style.left = `${this.#x(step)}px`;
  }

  /** Marks a row of the answer as the one whose lines are open; -1 for none. */
  select(row) {
    this.selected = row;
    this.#mark();
  }

  /** What one cell is: a shade of the palette, or one of `CELL`. */
  cell(row, column) {
    const at = row * this.axis.columns + column;
    if (this.answer.nonfinite.values[at] > 0) return CELL.notFinite;
    const value = this.answer.mean.values[at];
    if (Number.isNaN(value)) return CELL.missing;
    if (this.scale.log && value <= 0) return CELL.zero;
    return this.scale.shade(value);
  }

  /** Which kinds of cells off the colour scale there are, in any row. */
  kinds() {
    const found = {zero: false, notFinite: false, missing: false};
    for (let row = 0; row < this.answer.variables.length; row += 1) {
      for (let column = 0; column < this.axis.columns; column += 1) {
        const cell = this.cell(row, column);
        if (cell >= 0) continue;
        found.zero ||= cell === CELL.zero;
        found.notFinite ||= cell === CELL.notFinite;
        found.missing ||= cell === CELL.missing;
      }
    }
    return found;
  }

  #x(step) {
    return ((step - this.axis.low) / (this.axis.high - this.axis.low)) * this.width;
  }

  // First and last column under each device pixel. Several can meet under one where records are
  // spaced unevenly; then a cell that is not finite wins.
  #spans(pixels) {
    const {axis} = this;
    const spans = new Int32Array(pixels * 2);
    const size = (axis.high - axis.low) / pixels;
    for (let pixel = 0; pixel < pixels; pixel += 1) {
      const middle = axis.columnAt(axis.low + (pixel + 0.5) * size);
      const begins = axis.columnAt(axis.low + pixel * size);
      spans[2 * pixel] = begins < middle - 1 ? begins + 1 : middle;
      spans[2 * pixel + 1] = middle;
    }
    return spans;
  }

  #paint(data, offset, row, spans, pixels) {
    let previous = -1;
    let cell = CELL.missing;
    for (let pixel = 0; pixel < pixels; pixel += 1) {
      const last = spans[2 * pixel + 1];
      if (last !== previous) {
        cell = this.cell(row, last);
        for (let column = spans[2 * pixel]; column < last; column += 1) {
          if (this.cell(row, column) === CELL.notFinite) cell = CELL.notFinite;
        }
        previous = last;
      }
      if (cell === CELL.missing) continue;
      const color = cell >= 0 ? PALETTE[cell] : cell === CELL.zero ? ZERO : NOT_FINITE;
      const at = offset + pixel * 4;
      [data[at], data[at + 1], data[at + 2]] = color;
      data[at + 3] = 255;
    }
  }

  // A second sign beside colour, where there is room: a cross on cells that are not finite.
  #cross(context, first, rows, top) {
    if (this.width / this.axis.columns < 7) return;
    const half = 2.5;
    context.strokeStyle = rgb([255, 255, 255]);
    context.lineWidth = 1.25;
    context.beginPath();
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < this.axis.columns; column += 1) {
        if (this.cell(this.shown[first + row], column) !== CELL.notFinite) continue;
        const x = this.#x((this.axis.edges[column] + this.axis.edges[column + 1]) / 2);
        const y = top + (row + 0.5) * this.rowHeight - 0.5;
        context.moveTo(x - half, y - half);
        context.lineTo(x + half, y + half);
        context.moveTo(x + half, y - half);
        context.lineTo(x - half, y + half);
      }
    }
    context.stroke();
  }

  #hatch(context) {
    const tile = new OffscreenCanvas(6, 6);
    const painter = tile.getContext('2d');
    painter.fillStyle = css('--missing');
    painter.fillRect(0, 0, 6, 6);
    painter.strokeStyle = css('--missing-line');
    for (const shift of [-6, 0, 6]) {
      painter.moveTo(shift, 6);
      painter.lineTo(shift + 6, 0);
    }
    painter.stroke();
    return context.createPattern(tile, 'repeat');
  }

  #label() {
    const focused = this.labels.contains(document.activeElement);
    const context = this.canvas.getContext('2d');
    context.font = LABEL_FONT;
    const fits = (text) => context.measureText(text).width <= LABEL_WIDTH - 18;
    const short = shorten(this.shown.map((row) => this.answer.variables[row]), fits);
    this.labels.replaceChildren(...this.shown.map((row, place) => {
      const path = this.answer.variables[row];
      const [start, end] = short[place];
      return element(
        'div',
        {class: 'row', role: 'option', tabIndex: place ? -1 : 0, title: path,
          aria: {label: path}, dataset: {row}},
        element('span', {class: 'path-start'}, start),
        element('span', {class: 'path-end'}, end));
    }));
    if (focused && this.labels.firstChild) this.labels.firstChild.focus();
  }

  #mark() {
    for (const label of this.labels.children) {
      const chosen = Number(label.dataset.row) === this.selected;
      label.classList.toggle('selected', chosen);
      label.setAttribute('aria-selected', chosen);
    }
  }

  #focus(place) {
    const label = this.labels.children[place];
    if (!label) return;
    for (const other of this.labels.children) other.tabIndex = -1;
    label.tabIndex = 0;
    label.focus({preventScroll: true});
    label.scrollIntoView({block: 'nearest'});
  }

  #listen() {
    this.scroller.addEventListener('scroll', () => this.draw(), {passive: true});
    this.labels.addEventListener('click', (event) => {
      const label = event.target.closest('.row');
      if (label) this.#choose([...this.labels.children].indexOf(label));
    });
    this.labels.addEventListener('keydown', (event) => {
      const place = [...this.labels.children].indexOf(document.activeElement);
      const page = Math.max(1, Math.floor(this.viewHeight / this.rowHeight) - 1);
      const last = this.shown.length - 1;
      const goes = {
        ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: last,
        PageDown: Math.min(last, place + page), PageUp: Math.max(0, place - page),
      };
      if (event.key in goes) this.#focus(goes[event.key]);
      else if (event.key === 'Enter' || event.key === ' ') this.#choose(place);
      else return;
      event.preventDefault();
    });
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
      else if (place >= 0) this.#choose(place);
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

  #choose(place) {
    this.#focus(place);
    this.onSelect(this.shown[place]);
  }

  #placeAt(event) {
    const y = event.clientY - this.canvas.getBoundingClientRect().top + this.scroller.scrollTop;
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
    this.onHover({row: this.shown[place], column, x: event.clientX, y: event.clientY});
  }
}
