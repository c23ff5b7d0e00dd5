// One quantity of several runs over a common axis: a line each, named at its end.

import uPlot from './vendor/uPlot/uPlot.esm.js';
import {NOT_FINITE, rgb} from './colors.js';
import {CANVAS_FONT, css, element} from './dom.js';
import {DASHES, placeColor} from './layercolors.js';
import {
  NUMBERS_WIDTH, axisLabel, axisNumbers, padded, paddedLog, points, spansDecade,
} from './lines.js';

const NAMES = {width: 92, height: 12, letters: 14};

export class Overlay {
  /**
   * @param {{onPoint: function(Overlay, ?number, object, boolean), onZoom: function(?number[])}}
   *     listeners `onPoint` gets a place of the axis, a point of the page, and whether the keyboard
   *     moved; a zoom is `[first, last]` step, or null for all.
   */
  constructor({onPoint, onZoom}) {
    Object.assign(this, {onPoint, onZoom});
    this.name = element('h3', {});
    this.note = element('span', {class: 'value'});
    this.box = element('div', {class: 'plot', role: 'application', tabIndex: 0});
    this.root = element(
      'section', {class: 'overlay'}, element('div', {class: 'heading'}, this.name, this.note),
      this.box);
    this.box.addEventListener('keydown', (event) => this.#key(event));
    this.box.addEventListener('blur', () => this.onPoint(this, null));
  }

  /**
   * @param {CommonAxis} range
   * @param {object} quantity
   * @param {Array<{name: string, place: number, horizontal: Horizontal, mean, minimum, nonfinite}>}
   *     lines
   */
  show(range, quantity, lines) {
    this.destroy();
    Object.assign(this, {range, quantity, lines});
    this.log = quantity.scale === 'log' &&
      spansDecade(lines.flatMap(({mean}) => Array.from(mean)));
    this.name.textContent = quantity.label;
    this.name.title = quantity.description;
    this.note.textContent = this.log ? 'logarithmic' : '';
    this.root.dataset.quantity = quantity.name;
    const tables = lines.map(({horizontal, mean}) =>
      [Array.from(horizontal.middle), points(mean, this.log)]);
    this.data = uPlot.join(tables);
    this.plot = new uPlot(this.#options(), this.data, this.box);
    const last = lines.map(({name, mean}) => {
      const value = mean.findLast((one) => Number.isFinite(one));
      return `${name.slice(0, 200)}: ${value === undefined ? 'none' : axisLabel(value, false)}`;
    });
    this.box.setAttribute(
      'aria-label', `${quantity.label}. Last values: ${last.join('; ')}. Left and right move the ` +
        'cursor, plus and minus zoom, 0 shows all steps.');
  }

  /** A line's value at a place of the axis; undefined where it has no column. */
  valueAt({horizontal, mean, minimum, nonfinite}, place) {
    const column = horizontal.columnAt(place);
    if (column < 0) return undefined;
    if (Number.isNaN(mean[column]) && !nonfinite[column]) return undefined;
    return Number.isNaN(mean[column]) ? minimum[column] : mean[column];
  }

  /** Puts the vertical cursor at a place of the axis, or takes it away. */
  setCursor(place) {
    this.at = place;
    if (!this.plot) return;
    this.quiet = true;
    this.plot.setCursor({
      left: place === null ? -10 : this.plot.valToPos(place, 'x'), top: place === null ? -10 : 0,
    });
    this.quiet = false;
  }

  resize() {
    if (this.plot) this.plot.setSize({width: this.box.clientWidth, height: this.box.clientHeight});
  }

  /** Draws with the theme's colours. */
  draw() {
    if (this.plot) this.plot.redraw(false);
  }

  destroy() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
  }

  #options() {
    const {range, log, lines} = this;
    const grid = {stroke: () => css('--line'), width: 1};
    const text = {font: CANVAS_FONT, stroke: () => css('--dim')};
    return {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [8, NAMES.width, 0, 0],
      legend: {show: false},
      cursor: {
        drag: {x: true, y: false, setScale: false, dist: 5},
        y: false,
        points: {
          size: 7, stroke: () => css('--page'),
          fill: (plot, series) => placeColor(lines[series - 1].place),
        },
      },
      scales: {
        x: {time: false, range: () => [range.low, range.high]},
        y: log ? {distr: 3, range: paddedLog} : {range: padded},
      },
      series: [{}, ...lines.map(({place, horizontal}) => ({
        stroke: () => placeColor(place), width: 1.75, dash: DASHES[place], spanGaps: false,
        points: {show: horizontal.columns < 20, size: 5, fill: () => placeColor(place)},
      }))],
      axes: [
        {
          ...text, grid, ticks: {show: false}, size: 24, gap: 6,
          splits: (plot) => range.ticks(plot.bbox.width / devicePixelRatio),
          values: (plot, splits) => range.labels(splits),
        },
        {
          ...text, grid, ticks: {show: false}, size: NUMBERS_WIDTH, gap: 6, space: 26,
          splits: (plot, index, low, high) => axisNumbers(low, high, log, plot.bbox.height),
          filter: (plot, splits) => splits,
          values: (plot, splits) => splits.map((value) => axisLabel(value, log)),
        },
      ],
      hooks: {
        setCursor: [(plot) => this.#moved(plot)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => this.#decorate(plot)],
      },
    };
  }

  #moved(plot) {
    if (this.quiet) return;
    const {left, top} = plot.cursor;
    if (left === undefined || left < 0) {
      this.onPoint(this, null);
      return;
    }
    const box = plot.over.getBoundingClientRect();
    this.onPoint(this, plot.posToVal(left, 'x'), {x: box.left + left, y: box.top + top}, false);
  }

  #selected(plot) {
    const {left, width} = plot.select;
    if (!width) return;
    plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
    const steps = this.range.stepsWithin(
      plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x'));
    if (steps) this.onZoom(steps);
  }

  #key(event) {
    if (!this.plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const [places] = this.data;
    const moves = {
      ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity,
    };
    const {low, high} = this.range;
    const middle = this.at ?? (low + high) / 2;
    if (event.key in moves) {
      const now = this.at === null || this.at === undefined
        ? places.length : places.findIndex((place) => place >= this.at);
      const index = Math.max(0, Math.min(places.length - 1, now + moves[event.key]));
      const box = this.plot.over.getBoundingClientRect();
      const left = this.plot.valToPos(places[index], 'x');
      this.onPoint(this, places[index], {x: box.left + left, y: box.top + box.height / 3}, true);
    } else if ('+='.includes(event.key)) {
      const steps = this.range.stepsWithin(middle - (high - low) / 4, middle + (high - low) / 4);
      if (steps) this.onZoom(steps);
    } else if (event.key === '-' || event.key === '0') this.onZoom(null);
    else if (event.key === 'Escape') this.onPoint(this, null);
    else return;
    event.preventDefault();
  }

  // Red marks for what is not finite, and the runs' names behind the ends of their lines.
  #decorate(plot) {
    const {ctx: context, bbox} = plot;
    const pixel = devicePixelRatio;
    const room = NAMES.height * pixel;
    context.save();
    context.fillStyle = rgb(NOT_FINITE);
    this.lines.forEach(({horizontal, nonfinite}) => nonfinite.forEach((amount, column) => {
      if (!amount) return;
      const left = plot.valToPos(horizontal.edges[column], 'x', true);
      const right = plot.valToPos(horizontal.edges[column + 1], 'x', true);
      context.fillRect(left, bbox.top, Math.max(right - left, 2 * pixel), 5 * pixel);
    }));
    const names = this.lines.flatMap(({name, place, mean, horizontal}) => {
      const values = points(mean, this.log);
      const column = values.findLastIndex((one) => one !== null);
      if (column < 0) return [];
      const end = plot.valToPos(horizontal.middle[column], 'x', true);
      return [{name, place, end, y: plot.valToPos(values[column], 'y', true)}];
    }).sort((a, b) => a.y - b.y);
    let least = bbox.top + room / 2;
    for (const name of names) {
      name.at = Math.max(name.y, least);
      least = name.at + room;
    }
    let most = bbox.top + bbox.height - room / 2;
    for (const name of [...names].reverse()) {
      name.at = Math.min(name.at, most);
      most = name.at - room;
    }
    const edge = bbox.left + bbox.width;
    context.font = `${11 * pixel}px ${CANVAS_FONT.slice(5)}`;
    context.textAlign = 'left';
    context.textBaseline = 'middle';
    context.lineWidth = pixel;
    context.setLineDash([pixel, 3 * pixel]);
    for (const {name, place, end, y, at} of names) {
      context.strokeStyle = context.fillStyle = placeColor(place);
      // A dotted leader from where the line ends to its name, too faint to be taken for data.
      context.globalAlpha = 0.6;
      context.beginPath();
      context.moveTo(end + 3 * pixel, y);
      context.lineTo(edge, y);
      context.lineTo(edge + 8 * pixel, at);
      context.stroke();
      context.globalAlpha = 1;
      const short = name.length > NAMES.letters ? `${name.slice(0, NAMES.letters - 1)}…` : name;
      context.fillText(short, edge + 10 * pixel, at);
    }
    context.restore();
  }
}
