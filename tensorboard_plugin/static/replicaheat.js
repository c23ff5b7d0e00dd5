// One quantity of many replicas: replicas by steps, as colours.

import {NOT_FINITE, PALETTE, ZERO} from './colors.js';
import {CANVAS_FONT, css, element, prepare} from './dom.js';
import {ticks} from './format.js';
import {NUMBERS_WIDTH} from './plot.js';

const TOP = 6;
const DRAG = 5;

/** The height of a heatmap of so many replicas: a pixel each at least. */
export function heatHeight(replicas) {
  return 2 * TOP + replicas * Math.max(1, Math.min(9, Math.floor(150 / replicas)));
}

export class ReplicaHeat {
  /**
   * @param {Element} box Where it goes; its size is the heatmap's.
   * @param {{onCursor: function(?number), onZoom: function(number, number),
   *     onCell: function(?{row: number, column: number, x: number, y: number})}} listeners
   * @param {StepAxis} axis
   * @param {object} scale What `colorScale` gave.
   * @param {object[]} lines Of each replica, its arrays as of `rowOf`.
   */
  constructor(box, listeners, axis, scale, lines) {
    Object.assign(this, {box, listeners, axis, scale, lines});
    this.canvas = element('canvas', {class: 'replica-cells'});
    this.cursor = element('div', {class: 'cursor', hidden: true});
    this.range = element('div', {class: 'range', hidden: true});
    box.classList.add('replica-heat');
    box.append(this.canvas, this.cursor, this.range);
    box.addEventListener('pointermove', (event) => this.#move(event));
    box.addEventListener('pointerleave', () => this.#leave());
    box.addEventListener('pointerdown', (event) => this.#press(event));
    box.addEventListener('pointerup', (event) => this.#release(event));
  }

  show() {
    this.draw();
  }

  resize() {
    this.draw();
  }

  destroy() {
    this.box.replaceChildren();
  }

  setCursor(step) {
    this.cursor.hidden = step === null;
    if (step !== null) this.cursor.style.left = `${this.#x(step)}px`;
  }

  /** Draws with the theme's colours. */
  draw() {
    const {clientWidth: width, clientHeight: height} = this.box;
    if (!width || !height) return;
    const context = prepare(this.canvas, width, height);
    const ratio = this.canvas.width / width;
    const cells = this.#cells(Math.max(1, Math.round((width - NUMBERS_WIDTH) * ratio)));
    context.imageSmoothingEnabled = false;
    context.drawImage(cells, NUMBERS_WIDTH, TOP, width - NUMBERS_WIDTH, height - 2 * TOP);
    context.font = CANVAS_FONT;
    context.fillStyle = css('--dim');
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    const each = (height - 2 * TOP) / this.lines.length;
    for (const replica of ticks(0, this.lines.length - 1, (height - 2 * TOP) / 26, true)) {
      context.fillText(String(replica), NUMBERS_WIDTH - 6, TOP + (replica + 0.5) * each);
    }
  }

  // A pixel a column of the screen and a replica.
  #cells(pixels) {
    const {axis, lines, scale} = this;
    const canvas = element('canvas', {width: pixels, height: lines.length});
    const context = canvas.getContext('2d');
    const image = context.createImageData(pixels, lines.length);
    const missing = channels(css('--missing-line'));
    const columns = Array.from({length: pixels}, (_, pixel) =>
      axis.columnAt(axis.low + ((pixel + 0.5) / pixels) * (axis.high - axis.low)));
    lines.forEach(({mean, nonfinite}, replica) => {
      const colors = Array.from(mean, (value, column) => {
        if (nonfinite[column]) return NOT_FINITE;
        if (Number.isNaN(value)) return missing;
        if (scale.log && value <= 0) return ZERO;
        return PALETTE[scale.shade(value)];
      });
      columns.forEach((column, pixel) => {
        const [red, green, blue] = column < 0 ? missing : colors[column];
        image.data.set([red, green, blue, 255], 4 * (replica * pixels + pixel));
      });
    });
    context.putImageData(image, 0, 0);
    return canvas;
  }

  #x(step) {
    const {axis, box} = this;
    const width = box.clientWidth - NUMBERS_WIDTH;
    return NUMBERS_WIDTH + ((step - axis.low) / (axis.high - axis.low)) * width;
  }

  #step(x) {
    const {axis, box} = this;
    const width = box.clientWidth - NUMBERS_WIDTH;
    const share = Math.max(0, Math.min(1, (x - NUMBERS_WIDTH) / width));
    return axis.low + share * (axis.high - axis.low);
  }

  #move(event) {
    const {left, top, height} = this.box.getBoundingClientRect();
    const x = event.clientX - left;
    if (this.from !== undefined && Math.abs(x - this.from) > DRAG) {
      const [low, high] = [Math.min(x, this.from), Math.max(x, this.from)];
      this.range.hidden = false;
      this.range.style.left = `${Math.max(NUMBERS_WIDTH, low)}px`;
      this.range.style.width = `${high - Math.max(NUMBERS_WIDTH, low)}px`;
    }
    const step = this.#step(x);
    const place = Math.floor(
      ((event.clientY - top - TOP) / (height - 2 * TOP)) * this.lines.length);
    const row = Math.max(0, Math.min(this.lines.length - 1, place));
    const column = this.axis.columnAt(step);
    if (x < NUMBERS_WIDTH || column < 0) this.#leave();
    else {
      this.listeners.onCursor(step);
      this.listeners.onCell({row, column, x: event.clientX, y: event.clientY});
    }
  }

  #leave() {
    this.listeners.onCursor(null);
    this.listeners.onCell(null);
  }

  #press(event) {
    if (event.button !== 0) return;
    this.from = event.clientX - this.box.getBoundingClientRect().left;
    this.box.setPointerCapture(event.pointerId);
  }

  #release(event) {
    const {from} = this;
    this.from = undefined;
    this.range.hidden = true;
    const to = event.clientX - this.box.getBoundingClientRect().left;
    if (from === undefined || Math.abs(to - from) <= DRAG) return;
    this.listeners.onZoom(this.#step(Math.min(from, to)), this.#step(Math.max(from, to)));
  }
}

// "#rrggbb" as red, green and blue.
function channels(color) {
  const found = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(color);
  return found ? found.slice(1).map((pair) => parseInt(pair, 16)) : [128, 128, 128];
}
