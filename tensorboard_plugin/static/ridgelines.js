// The histograms of one layer over steps: a ridge for each column of recorded steps, the oldest at
// the top and behind, the newest at the bottom and in front; beside it what has no magnitude.

import {CANVAS_FONT, css, element, prepare} from './dom.js';
import {count, number, power, whole} from './format.js';
import {SHARES, share} from './histograms.js';
import {faded, placeColor} from './layercolors.js';

/** Most ridges of a panel; more would hide one another. */
export const MOST_RIDGES = 40;

const STEPS_WIDTH = 56;
const SHARE_WIDTH = 50;
const TOP = 18;
const BOTTOM = 24;
const TEXT_HEIGHT = 13;
const SPACING = {least: 5, most: 24};
const ROOM = 230;

export class Ridgelines {
  /** @param {function(?Node[], number, number, boolean)} onPoint What to tell, at a point. */
  constructor(onPoint) {
    this.onPoint = onPoint;
    this.canvas = element('canvas', {});
    this.root = element(
      'div', {class: 'ridges', role: 'application', tabIndex: 0}, this.canvas);
    this.at = null;
    this.root.addEventListener('pointermove', (event) => this.#hover(event));
    this.root.addEventListener('pointerleave', () => this.#point(null));
    this.root.addEventListener('blur', () => this.#point(null));
    this.root.addEventListener('keydown', (event) => this.#key(event));
  }

  /**
   * @param {{exponents, ridges}} layer Of `readRidges`; at least one ridge.
   * @param {StepAxis} axis The columns' steps.
   * @param {[number, number]} range Exponents shown, the last included.
   * @param {{path: string, place: number, quantity: object}} names
   */
  show({exponents, ridges}, axis, range, {path, place, quantity}) {
    Object.assign(this, {exponents, ridges, axis, range, path, place, quantity});
    this.at = null;
    this.spacing = Math.max(
      SPACING.least, Math.min(SPACING.most, ROOM / ridges.length));
    // The highest share of any ridge is as high as several ridges are apart.
    this.most = Math.max(...ridges.map(({values, total}) =>
      values.reduce((high, value) => Math.max(high, value), 0) / Math.max(total, 1e-30)));
    this.tall = Math.max(40, Math.min(90, 3.5 * this.spacing));
    this.height = TOP + this.tall + this.spacing * (ridges.length - 1) + BOTTOM;
    const {column, counts, total} = ridges[ridges.length - 1];
    const said = SHARES.map(([name, label]) => `${label} ${share(counts[name], total)}`).join(', ');
    this.root.setAttribute(
      'aria-label',
      `${quantity.label} of ${path.slice(0, 200)}: ${count(ridges.length, 'histogram')}. ` +
        `${axis.name(column)}: ${said}. Arrow keys go through steps and magnitudes.`);
    this.draw();
  }

  /** Draws with the theme's colours, as wide as there is room. */
  draw() {
    const width = this.root.clientWidth;
    if (!this.ridges || !width) return;
    const context = prepare(this.canvas, width, this.height);
    this.left = STEPS_WIDTH;
    this.right = Math.max(this.left + 60, width - SHARE_WIDTH * SHARES.length - 8);
    context.font = CANVAS_FONT;
    this.#drawAxis(context);
    this.ridges.forEach((_, row) => this.#drawRidge(context, row));
    this.#drawTexts(context, width);
    if (this.at) this.#drawMark(context);
  }

  #x(exponent) {
    const [low, high] = this.range;
    return this.left + ((exponent - low) / (high + 1 - low)) * (this.right - this.left);
  }

  #base(row) {
    return TOP + this.tall + row * this.spacing;
  }

  #tall(row, place) {
    const {values, total} = this.ridges[row];
    return total > 0 && this.most > 0 ? (values[place] / total / this.most) * this.tall : 0;
  }

  #drawAxis(context) {
    const bottom = this.#base(this.ridges.length - 1);
    const [low, high] = this.range;
    const decades = [Math.ceil(low * Math.log10(2)), Math.floor((high + 1) * Math.log10(2))];
    const room = (this.right - this.left) / Math.max(1, decades[1] - decades[0]);
    const every = Math.max(1, Math.ceil(38 / room));
    context.textAlign = 'center';
    context.textBaseline = 'top';
    context.fillStyle = css('--dim');
    context.strokeStyle = css('--line');
    for (let decade = decades[0]; decade <= decades[1]; decade += 1) {
      if (decade % every) continue;
      const x = Math.round(this.#x(decade / Math.log10(2))) + 0.5;
      context.beginPath();
      context.moveTo(x, TOP);
      context.lineTo(x, bottom + 4);
      context.stroke();
      context.fillText(power(decade), x, bottom + 8);
    }
    context.textAlign = 'right';
    context.fillText('Step', this.left - 10, 2);
    SHARES.forEach(([, label], place) =>
      context.fillText(label, this.right + SHARE_WIDTH * (place + 1), 2));
  }

  #drawRidge(context, row) {
    const base = this.#base(row);
    const color = placeColor(this.place);
    const middle = this.exponents.map((exponent) => this.#x(exponent + 0.5));
    const [low, high] = this.range;
    const outline = () => {
      context.beginPath();
      context.moveTo(this.left, base);
      this.exponents.forEach((exponent, place) => {
        if (exponent >= low && exponent <= high) {
          context.lineTo(middle[place], base - this.#tall(row, place));
        }
      });
      context.lineTo(this.right, base);
    };
    // Opaque below, so that what is in front hides what is behind.
    outline();
    context.fillStyle = css('--page');
    context.fill();
    const newer = (row + 1) / this.ridges.length;
    context.fillStyle = faded(color, 0.12 + 0.3 * newer);
    context.fill();
    outline();
    context.strokeStyle = faded(color, 0.45 + 0.55 * newer);
    context.lineWidth = 1;
    context.lineJoin = 'round';
    context.stroke();
  }

  #drawTexts(context, width) {
    const every = Math.ceil(TEXT_HEIGHT / this.spacing);
    const last = this.ridges.length - 1;
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    for (let row = last; row >= 0; row -= every) {
      const {column, counts, total} = this.ridges[row];
      const y = this.#base(row) - 3;
      const [first, end] = [this.axis.first[column], this.axis.last[column]];
      context.fillStyle = css('--dim');
      context.fillText(whole(first === end ? first : this.axis.middle[column]), this.left - 10, y);
      SHARES.forEach(([name], place) => {
        const broken = place > 1 && counts[name] > 0;
        context.fillStyle = broken ? css('--broken') : css('--dim');
        context.fillText(
          share(counts[name], total), Math.min(width, this.right + SHARE_WIDTH * (place + 1)), y);
      });
    }
  }

  #drawMark(context) {
    const {row, place} = this.at;
    const x = this.#x(this.exponents[place] + 0.5);
    context.fillStyle = css('--text');
    context.strokeStyle = css('--text');
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(this.left, this.#base(row) + 0.5);
    context.lineTo(this.right, this.#base(row) + 0.5);
    context.stroke();
    context.beginPath();
    context.arc(x, this.#base(row) - this.#tall(row, place), 3.5, 0, 2 * Math.PI);
    context.fill();
  }

  #hover({offsetX: x, offsetY: y, clientX, clientY}) {
    if (!this.ridges) return;
    const last = this.ridges.length - 1;
    const [low, high] = this.range;
    const share_ = (x - this.left) / (this.right - this.left);
    const exponent = Math.floor(low + Math.max(0, Math.min(0.999, share_)) * (high + 1 - low));
    const place = this.#nearest(exponent);
    // What is seen at the point: the ridge that is farthest in front and reaches up to it.
    let row = last;
    const above = (one) => y < this.#base(one) - this.#tall(one, place);
    while (row > 0 && (y > this.#base(row) + 1 || above(row))) row -= 1;
    if (y > this.#base(row) || above(row)) {
      row = Math.round((y - this.#base(0)) / this.spacing + 0.4);
    }
    row = Math.max(0, Math.min(last, row));
    this.#point({row, place}, clientX, clientY, false);
  }

  #nearest(exponent) {
    let best = 0;
    this.exponents.forEach((one, place) => {
      if (Math.abs(one - exponent) < Math.abs(this.exponents[best] - exponent)) best = place;
    });
    return best;
  }

  #key(event) {
    const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    if (!this.ridges || !(event.key in moves || event.key === 'Escape')) return;
    if (event.key === 'Escape') {
      this.#point(null);
      return;
    }
    event.preventDefault();
    const last = this.ridges.length - 1;
    const [low, high] = this.range.map((exponent) => this.#nearest(exponent));
    const values = this.ridges[last].values;
    const from = this.at || {row: last, place: values.indexOf(Math.max(...values))};
    const [down, right] = this.at ? moves[event.key] : [0, 0];
    const row = Math.max(0, Math.min(last, from.row + down));
    const place = Math.max(low, Math.min(high, from.place + right));
    const box = this.root.getBoundingClientRect();
    const x = box.left + this.#x(this.exponents[place] + 0.5);
    this.#point({row, place}, x, box.top + this.#base(row), true);
  }

  #point(at, x, y, keyboard) {
    if (at === null && this.at === null) return;
    this.at = at;
    this.draw();
    this.onPoint(at && this.#told(at), x, y, keyboard);
  }

  // A bin's exact count, and the counts of what has no magnitude.
  #told({row, place}) {
    const {column, counts, values, total} = this.ridges[row];
    const exponent = this.exponents[place];
    const edges = [2 ** exponent, 2 ** (exponent + 1)].map((edge) => number(edge, 3));
    const magnitude = place === 0 ? `below ${edges[1]}`
      : place === this.exponents.length - 1 ? `${edges[0]} or more` : `${edges[0]} to ${edges[1]}`;
    const one = this.axis.first[column] === this.axis.last[column];
    const records = one ? '' : ', mean of its records';
    const amount = (value) =>
      `${number(value, 12)} of ${number(total, 12)} (${share(value, total)})`;
    const lines = [
      [`Magnitude ${magnitude}`, amount(values[place])],
      ['Zero', amount(counts.zero)], ['Negative', amount(counts.negative)],
      ['NaN', amount(counts.nan)], ['Infinite', amount(counts.infinity)],
    ];
    return [
      element('div', {class: 'tooltip-title'}, `${this.quantity.label}: ${this.path.slice(-80)}`),
      element('div', {}, `${this.axis.name(column)}${records}`),
      element('dl', {}, ...lines.flatMap(([name, text]) =>
        [element('dt', {}, name), element('dd', {}, text)])),
    ];
  }
}
