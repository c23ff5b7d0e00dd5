// The heatmap's colour legend: the scale with ticks, its target, and what stands off the scale.

import {NOT_FINITE, PALETTE, ZERO, legendTicks, rgb} from './colors.js';
import {CANVAS_FONT, css, element, prepare} from './dom.js';
import {number, power} from './format.js';

const WIDTH = 300;
const BAR = {left: 12, top: 16, height: 12};
const HEIGHT = 50;

export class Legend {
  constructor() {
    this.canvas = element('canvas', {role: 'img'});
    this.swatches = element('div', {class: 'swatches'});
    this.root = element('div', {class: 'legend'}, this.swatches, this.canvas);
  }

  /**
   * @param {object} scale What `colorScale` gave; another one brings `palette`, `ticks` and
   *     `notFinite` of its own.
   * @param {object} statistic
   * @param {{zero: boolean, notFinite: boolean, missing: boolean}} present Which there are.
   */
  show(scale, statistic, present) {
    this.scale = scale;
    const swatches = [
      present.zero && ['zero', 'Exactly 0', rgb(ZERO)],
      present.notFinite && ['not-finite', 'NaN or infinite', rgb(scale.notFinite || NOT_FINITE)],
      present.missing && ['missing', 'Not recorded', null],
    ].filter(Boolean);
    this.swatches.replaceChildren(...swatches.map(([name, text, color]) => {
      const box = element('i', {class: `swatch ${name}`});
      if (color) box.style.background = color;
      return element('span', {}, box, text);
    }));
    const ends = `from ${number(scale.low, 2)} to ${number(scale.high, 2)}`;
    this.canvas.setAttribute('aria-label', `Colours of ${statistic.label} ${ends}`);
    this.draw();
  }

  /** Draws with the theme's colours. */
  draw() {
    if (!this.scale) return;
    const context = prepare(this.canvas, WIDTH, HEIGHT);
    const palette = this.scale.palette || PALETTE;
    const width = WIDTH - 2 * BAR.left;
    const bottom = BAR.top + BAR.height;
    const at = (value) => BAR.left + this.scale.place(value) * width;
    for (let x = 0; x < width; x += 1) {
      context.fillStyle = rgb(palette[Math.round((x / (width - 1)) * (palette.length - 1))]);
      context.fillRect(BAR.left + x, BAR.top, 1, BAR.height);
    }
    context.font = CANVAS_FONT;
    context.textAlign = 'center';
    context.textBaseline = 'top';
    for (const {value, label} of this.scale.ticks || legendTicks(this.scale)) {
      const x = Math.round(at(value)) + 0.5;
      context.strokeStyle = css('--strong-line');
      context.beginPath();
      context.moveTo(x, bottom);
      context.lineTo(x, bottom + (label ? 5 : 3));
      context.stroke();
      context.fillStyle = css('--dim');
      const half = context.measureText(label).width / 2;
      context.fillText(label, Math.max(half, Math.min(WIDTH - half, x)), bottom + 7);
    }
    if (this.scale.target) this.#target(context, at(this.scale.target), bottom);
  }

  #target(context, x, bottom) {
    context.fillStyle = css('--text');
    context.beginPath();
    context.moveTo(x - 4, BAR.top - 5);
    context.lineTo(x + 4, BAR.top - 5);
    context.lineTo(x, BAR.top);
    context.fill();
    context.fillRect(x - 0.75, BAR.top, 1.5, bottom - BAR.top);
    context.textBaseline = 'alphabetic';
    const exponent = Math.log10(this.scale.target);
    const whole = Math.abs(exponent - Math.round(exponent)) < 1e-9;
    const value = whole ? power(Math.round(exponent)) : number(this.scale.target, 2);
    const text = `usual: ${value}`;
    const fits = x + 8 + context.measureText(text).width <= WIDTH;
    context.textAlign = fits ? 'left' : 'right';
    context.fillText(text, fits ? x + 8 : x - 8, BAR.top - 4);
  }
}
