// A heatmap among several that are compared: rows, labels and axis on canvases, without selection.
//
// Its columns are a run's own, its axis is that of all; whoever makes it says a cell's colour.

import {drawAxis} from './axis.js';
import {CANVAS_FONT, css, element, prepare} from './dom.js';
import {hatch} from './heatcells.js';

/** Width of the rows' labels. */
export const CELLS_LABELS = 240;

const ROW_HEIGHT = {least: 16, most: 22};
const AXIS_HEIGHT = 24;
const LEAST_DRAG = 5;
const MOST_LETTERS = 60;
const FONT = CANVAS_FONT.replace('11px', '12px');

export class Cells {
  /**
   * @param {{onHover: function(Cells, ?object, boolean), onZoom: function(?number[]),
   *     onScroll: function(number)}} listeners `onHover` gets `{row, column, step, x, y}`, with a
   *     column of -1 over labels and where the run has none, and whether the keyboard moved; a
   *     zoom is from step to step, or null for all.
   */
  constructor({onHover, onZoom, onScroll}) {
    Object.assign(this, {onHover, onZoom, onScroll});
    this.title = element('h3', {});
    this.canvas = element('canvas', {class: 'compared-cells'});
    this.spacer = element('div', {class: 'compared-spacer'}, this.canvas);
    this.cursor = element('div', {class: 'cursor', hidden: true});
    this.range = element('div', {class: 'range', hidden: true});
    this.scroller = element(
      'div', {class: 'compared-scroller', tabIndex: 0, role: 'application'}, this.spacer);
    this.axisCanvas = element('canvas', {class: 'compared-axis'});
    this.root = element(
      'section', {class: 'compared'}, this.title,
      element('div', {class: 'compared-box'}, this.scroller, this.range, this.cursor),
      this.axisCanvas);
    this.at = {row: 0, column: -1};
    this.#listen();
  }

  /**
   * @param {object} shown
   * @param {string[]} shown.paths Of the rows.
   * @param {Set<string>} shown.absent Those that this run does not have.
   * @param {StepAxis} shown.axis The columns.
   * @param {CommonAxis} shown.range What is drawn of the axis of steps.
   * @param {function(number, number): ?number[]} shown.color Red, green and blue of a cell.
   * @param {function(number, number): boolean} shown.marked Whether a cell wins over neighbours
   *     that share its pixel.
   * @param {string} shown.label For screen readers.
   */
  show(shown) {
    this.shown = shown;
    this.scroller.setAttribute(
      'aria-label', `${shown.label}. Arrow keys move between layers and steps, plus and minus ` +
        'zoom, 0 shows all steps.');
  }

  /** Fits into a width and at most a height, and draws. */
  layout(width, most) {
    const rows = Math.max(1, this.shown.paths.length);
    const {least, most: high} = ROW_HEIGHT;
    this.rowHeight = Math.floor(Math.max(least, Math.min(high, most / rows)));
    const total = rows * this.rowHeight;
    this.height = Math.min(total, Math.max(3, Math.floor(most / this.rowHeight)) * this.rowHeight);
    this.scroller.style.height = `${this.height}px`;
    this.spacer.style.height = `${total}px`;
    // All of those below each other must have the same width, with or without a scroll bar.
    this.width = Math.max(50, width - CELLS_LABELS - 14);
    this.draw();
  }

  /** Draws labels, cells and axis with the theme's colours. */
  draw() {
    if (!this.shown || !this.width) return;
    const {paths, range} = this.shown;
    const context = prepare(this.canvas, CELLS_LABELS + this.width, this.height);
    drawAxis(this.axisCanvas, range, this.width, AXIS_HEIGHT);
    const first = Math.floor(this.scroller.scrollTop / this.rowHeight);
    const rows = Math.min(paths.length - first, Math.ceil(this.height / this.rowHeight) + 1);
    if (rows <= 0) return;
    const top = first * this.rowHeight - this.scroller.scrollTop;
    const pixels = Math.round(this.width * (window.devicePixelRatio || 1));
    const picture = new OffscreenCanvas(pixels, rows);
    const painter = picture.getContext('2d');
    const image = painter.createImageData(pixels, rows);
    const spans = this.#spans(pixels);
    for (let row = 0; row < rows; row += 1) {
      this.#paint(image.data, row * pixels * 4, first + row, spans, pixels);
    }
    painter.putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.fillStyle = hatch(context);
    context.fillRect(CELLS_LABELS, 0, this.width, this.height);
    context.drawImage(picture, CELLS_LABELS, top, this.width, rows * this.rowHeight);
    this.#label(context, first, rows, top);
  }

  /** Puts the vertical cursor at a step, or takes it away. */
  setCursor(step) {
    const {low, high} = this.shown.range;
    const inside = step !== null && step >= low && step <= high;
    this.cursor.hidden = !inside;
    const x = CELLS_LABELS + ((step - low) / (high - low)) * this.width;
    if (inside) this.cursor.style.left = `${x}px`;
  }

  /** Scrolls as another has. */
  scrollTo(top) {
    if (this.scroller.scrollTop !== top) this.scroller.scrollTop = top;
  }

  // First and last column under each device pixel.
  #spans(pixels) {
    const {axis, range} = this.shown;
    const spans = new Int32Array(2 * pixels).fill(-1);
    const size = (range.high - range.low) / pixels;
    for (let pixel = 0; pixel < pixels; pixel += 1) {
      const middle = axis.columnAt(range.low + (pixel + 0.5) * size);
      const begins = axis.columnAt(range.low + pixel * size);
      spans[2 * pixel] = begins >= 0 && begins < middle - 1 ? begins + 1 : middle;
      spans[2 * pixel + 1] = middle;
    }
    return spans;
  }

  #paint(data, offset, row, spans, pixels) {
    const {color, marked} = this.shown;
    for (let pixel = 0; pixel < pixels; pixel += 1) {
      const last = spans[2 * pixel + 1];
      if (last < 0) continue;
      let column = last;
      for (let one = spans[2 * pixel]; one < last; one += 1) if (marked(row, one)) column = one;
      const found = color(row, column);
      if (!found) continue;
      const at = offset + 4 * pixel;
      [data[at], data[at + 1], data[at + 2]] = found;
      data[at + 3] = 255;
    }
  }

  #label(context, first, rows, top) {
    const {paths, absent} = this.shown;
    context.font = FONT;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    for (let row = 0; row < rows; row += 1) {
      const y = top + row * this.rowHeight;
      context.fillStyle = css('--page');
      context.fillRect(CELLS_LABELS, y - 1, this.width, 1);
      const path = paths[first + row];
      const missing = absent.has(path);
      context.fillStyle = css(missing ? '--dim' : '--text');
      context.font = missing ? `italic ${FONT}` : FONT;
      const middle = y + this.rowHeight / 2;
      context.fillText(fitting(context, path, CELLS_LABELS - 14), CELLS_LABELS - 10, middle);
      if (!missing) continue;
      context.textAlign = 'left';
      context.fillText('not in this run', CELLS_LABELS + 8, middle);
      context.textAlign = 'right';
    }
  }

  #step(x) {
    const {low, high} = this.shown.range;
    return low + ((x - CELLS_LABELS) / this.width) * (high - low);
  }

  #xAt(event) {
    return event.clientX - this.scroller.getBoundingClientRect().left;
  }

  #listen() {
    const {scroller} = this;
    scroller.addEventListener('scroll', () => {
      this.draw();
      this.onScroll(scroller.scrollTop);
    }, {passive: true});
    let from = null;
    const limited = (event) =>
      Math.max(CELLS_LABELS, Math.min(CELLS_LABELS + this.width, this.#xAt(event)));
    scroller.addEventListener('pointerdown', (event) => {
      const x = this.#xAt(event);
      if (event.button !== 0 || x < CELLS_LABELS || x > CELLS_LABELS + this.width) return;
      from = x;
      scroller.setPointerCapture(event.pointerId);
    });
    scroller.addEventListener('pointermove', (event) => {
      this.#hover(event);
      if (from === null) return;
      const x = limited(event);
      this.range.hidden = Math.abs(x - from) < LEAST_DRAG;
      this.range.style.left = `${Math.min(x, from)}px`;
      this.range.style.width = `${Math.abs(x - from)}px`;
    });
    scroller.addEventListener('pointerup', (event) => {
      if (from === null) return;
      const [low, high] = [from, limited(event)].sort((a, b) => a - b);
      const dragged = !this.range.hidden;
      from = null;
      this.range.hidden = true;
      if (dragged) this.onZoom(this.shown.range.stepsWithin(this.#step(low), this.#step(high)));
    });
    scroller.addEventListener('pointercancel', () => {
      from = null;
      this.range.hidden = true;
    });
    scroller.addEventListener('pointerleave', () => this.onHover(this, null, false));
    scroller.addEventListener('blur', () => this.onHover(this, null, false));
    scroller.addEventListener('keydown', (event) => this.#key(event));
  }

  #hover(event) {
    const y = event.clientY - this.scroller.getBoundingClientRect().top + this.scroller.scrollTop;
    const row = Math.floor(y / this.rowHeight);
    if (row < 0 || row >= this.shown.paths.length) {
      this.onHover(this, null, false);
      return;
    }
    const step = this.#step(this.#xAt(event));
    const column = this.shown.axis.columnAt(step);
    const inside = step >= this.shown.range.low && step <= this.shown.range.high;
    const point = {x: event.clientX, y: event.clientY};
    this.onHover(this, {row, column, step: inside ? step : null, ...point}, false);
  }

  #key(event) {
    const {axis, paths, range} = this.shown;
    if (event.ctrlKey || event.metaKey || event.altKey || !axis.columns) return;
    const page = Math.max(1, Math.floor(this.height / this.rowHeight) - 1);
    const moves = {
      ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1],
      PageDown: [page, 0], PageUp: [-page, 0], Home: [0, -axis.columns], End: [0, axis.columns],
    };
    const middle = this.at.column < 0 ? (range.low + range.high) / 2 : axis.middle[this.at.column];
    if (event.key in moves) {
      const [down, right] = moves[event.key];
      const within = (value, size) => Math.max(0, Math.min(size - 1, value));
      const began = this.at.column >= 0;
      const row = within(this.at.row + (began ? down : 0), paths.length);
      const column = within(this.at.column + (began ? right : axis.columns), axis.columns);
      this.#go(row, column);
    } else if ('+='.includes(event.key)) {
      const quarter = (range.high - range.low) / 4;
      this.onZoom(range.stepsWithin(middle - quarter, middle + quarter));
    } else if (event.key === '-' || event.key === '0') this.onZoom(null);
    else if (event.key === 'Escape') this.onHover(this, null, true);
    else return;
    event.preventDefault();
  }

  #go(row, column) {
    this.at = {row, column};
    const top = row * this.rowHeight;
    const {scroller} = this;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    const most = top + this.rowHeight - this.height;
    if (most > scroller.scrollTop) scroller.scrollTop = most;
    const box = scroller.getBoundingClientRect();
    const {axis, range} = this.shown;
    const step = axis.middle[column];
    const x = box.left + CELLS_LABELS +
      ((step - range.low) / (range.high - range.low)) * this.width;
    const y = box.top + top - scroller.scrollTop + this.rowHeight / 2;
    this.onHover(this, {row, column, step, x, y}, true);
  }
}

// The end of a path that fits; it tells layers apart better than the beginning.
function fitting(context, path, width) {
  let text = path.length > MOST_LETTERS ? `…${path.slice(-MOST_LETTERS)}` : path;
  while (text.length > 2 && context.measureText(text).width > width) {
    const slash = text.indexOf('/', 2);
    text = `…${slash > 0 ? text.slice(slash) : text.slice(text.length > 40 ? 6 : 2)}`;
  }
  return text;
}
