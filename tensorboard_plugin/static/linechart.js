// One statistic of several layers over steps or time: a line each, with a band from minimum to
// maximum where records were bucketed, smoothed if wanted.

import uPlot from './vendor/uPlot/uPlot.esm.js';
import {CANVAS_FONT, css, element} from './dom.js';
import {number} from './format.js';
import {DASHES, faded, placeColor} from './layercolors.js';
import {NAMES_WIDTH, drawMarks} from './linemarks.js';
import {
  NUMBERS_WIDTH, axisLabel, axisNumbers, padded, paddedLog, points, spansDecade,
} from './lines.js';
import {smooth} from './smoothing.js';

// Of each layer, in this order: uPlot's series. Series 0 are the places on the axis.
const SERIES = 4;

const PLAIN_KEYS = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10};
const ZOOM_KEYS = {'+': 0.5, '=': 0.5, '-': 2, _: 2};

export class LineChart {
  /**
   * @param {{onPoint: function(LineChart, ?number, {x: number, y: number}, boolean),
   *     onZoom: function(?number[])}} listeners `onPoint` gets a column, a point of the page, and
   *     whether the keyboard moved; a zoom is `[first, last]` step, or null for all.
   */
  constructor({onPoint, onZoom}) {
    this.onPoint = onPoint;
    this.onZoom = onZoom;
    this.name = element('span', {class: 'name'});
    this.note = element('span', {class: 'value'});
    this.heading = element('div', {class: 'heading'}, this.name, this.note);
    this.box = element('div', {class: 'plot', role: 'application', tabIndex: 0});
    this.root = element('section', {class: 'line-chart'}, this.heading, this.box);
    this.column = -1;
    this.box.addEventListener('keydown', (event) => this.#key(event));
    this.box.addEventListener('blur', () => this.onPoint(this, null));
  }

  /**
   * @param {Horizontal} horizontal
   * @param {object} statistic
   * @param {Array<{place: number, path: string, minimum, mean, maximum, nonfinite}>} lines
   *     Float32Arrays, one value a column.
   * @param {{scale: string, smoothing: number}} options As in the state.
   */
  show(horizontal, statistic, lines, {scale, smoothing}) {
    this.destroy();
    Object.assign(this, {horizontal, statistic, lines, smoothing});
    this.log = logarithmic(scale, statistic, lines);
    this.name.textContent = statistic.label;
    this.heading.title = statistic.description;
    this.root.dataset.statistic = statistic.name;
    this.root.dataset.log = this.log;
    this.note.textContent = this.#noteText(scale);
    this.plot = new uPlot(this.#options(), this.#data(), this.box);
    this.#describe();
  }

  /** Smooths anew; the vertical scale stays, so that a moved slider moves lines alone. */
  setSmoothing(smoothing) {
    this.smoothing = smoothing;
    if (this.plot) this.plot.setData(this.#data());
  }

  /** Puts the vertical cursor at a column, or takes it away for -1. */
  setCursor(column) {
    this.column = column;
    if (!this.plot) return;
    const left = column < 0 ? -10 : this.plot.valToPos(this.horizontal.middle[column], 'x');
    this.quiet = true;
    this.plot.setCursor({left, top: column < 0 ? -10 : 0});
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

  #data() {
    const {lines, log, smoothing} = this;
    this.smoothed = lines.map(({mean}) => (smoothing ? smooth(mean, smoothing) : null));
    const nothing = new Array(this.horizontal.columns).fill(null);
    return [this.horizontal.middle, ...lines.flatMap((line, index) => [
      points(line.minimum, log), points(line.maximum, log), points(line.mean, log),
      smoothing ? points(this.smoothed[index], log) : nothing,
    ])];
  }

  #noteText(scale) {
    const zeros = this.log && this.lines.some(({mean}) => mean.some((value) => value === 0));
    const signed = scale === 'log' && !this.log;
    return [
      this.log ? 'logarithmic' : 'linear', signed ? 'for values of 0 or less' : null,
      zeros ? '0 at the lower edge' : null,
    ].filter(Boolean).join(', ');
  }

  #describe() {
    const last = this.lines.map(({path, mean}) => {
      const value = mean.findLast((one) => Number.isFinite(one));
      return `${path.slice(0, 200)}: ${value === undefined ? 'none' : axisLabel(value, false)}`;
    });
    this.box.setAttribute(
      'aria-label',
      `${this.statistic.label} over ${this.horizontal.columns} columns. ` +
        `Last values: ${last.join('; ')}. ` +
        'Left and right move the cursor, plus and minus zoom, 0 shows all steps.');
  }

  #options() {
    const {horizontal, log} = this;
    const grid = {stroke: () => css('--line'), width: 1};
    const text = {font: CANVAS_FONT, stroke: () => css('--dim')};
    return {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [8, NAMES_WIDTH, 0, 0],
      legend: {show: false},
      cursor: {
        drag: {x: true, y: false, setScale: false, dist: 5},
        y: false,
        points: {
          size: (plot, series) => (series % SERIES === this.#mainSeries ? 7 : 0),
          fill: (plot, series) => this.#color(series),
          stroke: () => css('--page'),
        },
      },
      scales: {
        x: {time: false, range: () => [horizontal.low, horizontal.high]},
        y: log ? {distr: 3, range: paddedLog} : {range: padded},
      },
      series: [{}, ...this.lines.flatMap(({place}) => this.#series(place))],
      bands: horizontal.steps.bucketed ? this.lines.map((_, index) => ({
        series: [SERIES * index + 2, SERIES * index + 1],
        fill: () => faded(this.#color(SERIES * index + 1), this.lines.length > 3 ? 0.14 : 0.22),
      })) : [],
      axes: [
        {
          ...text, grid, ticks: {show: false}, size: 24, gap: 6,
          splits: (plot) => horizontal.ticks(plot.bbox.width / devicePixelRatio),
          values: (plot, splits) => horizontal.labels(splits),
        },
        {
          ...text, grid, ticks: {show: false}, size: NUMBERS_WIDTH, gap: 6, space: 26,
          splits: (plot, index, low, high) => axisNumbers(low, high, log, plot.bbox.height),
          filter: (plot, splits) => splits,
          values: (plot, splits) => distinctLabels(splits, log),
        },
      ],
      hooks: {
        setCursor: [(plot) => this.#moved(plot)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => drawMarks(plot, this)],
      },
    };
  }

  // The series that the cursor's point is on: 3 are the means, 4 (as 0) the smoothed ones.
  get #mainSeries() {
    return this.smoothing ? 0 : 3;
  }

  #color(series) {
    return placeColor(this.lines[Math.floor((series - 1) / SERIES)].place);
  }

  #series(place) {
    const hidden = {stroke: () => 'transparent', width: 0, points: {show: false}};
    const few = this.horizontal.columns < 40;
    const dash = DASHES[place];
    return [
      hidden,
      hidden,
      {
        stroke: () => faded(placeColor(place), this.smoothing ? 0.35 : 1),
        width: 1.5, spanGaps: false, dash,
        points: {show: () => few && !this.smoothing, size: 5, fill: () => placeColor(place)},
      },
      {stroke: () => placeColor(place), width: 2, spanGaps: false, dash, points: {show: false}},
    ];
  }

  #moved(plot) {
    if (this.quiet) return;
    const {left, top} = plot.cursor;
    if (left === undefined || left < 0) {
      this.onPoint(this, null);
      return;
    }
    const box = plot.over.getBoundingClientRect();
    this.#point(this.horizontal.columnAt(plot.posToVal(left, 'x')), box, left, top, false);
  }

  #point(column, box, left, top, keyboard) {
    const point = {x: box.left + left, y: box.top + top};
    this.onPoint(this, column < 0 ? null : column, point, keyboard);
  }

  #selected(plot) {
    const {left, width} = plot.select;
    if (!width) return;
    plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
    const range = this.horizontal.stepsWithin(
      plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x'));
    if (range) this.onZoom(range);
  }

  #key(event) {
    if (!this.plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const {columns, steps} = this.horizontal;
    const at = this.column < 0 ? columns - 1 : this.column;
    if (event.key in PLAIN_KEYS || event.key === 'Home' || event.key === 'End') {
      const goes = this.column < 0 ? at : at + (PLAIN_KEYS[event.key] || 0);
      const ends = {Home: 0, End: columns - 1};
      const column = Math.max(0, Math.min(columns - 1, ends[event.key] ?? goes));
      const left = this.plot.valToPos(this.horizontal.middle[column], 'x');
      const box = this.plot.over.getBoundingClientRect();
      this.#point(column, box, left, box.height / 3, true);
    } else if (event.key in ZOOM_KEYS) {
      const half = ((columns * ZOOM_KEYS[event.key]) / 2);
      if (half < 1 && ZOOM_KEYS[event.key] < 1) return;
      const from = steps.middle[at] - (half * (steps.high - steps.low)) / columns;
      const to = steps.middle[at] + (half * (steps.high - steps.low)) / columns;
      // Farther than what is read, the server knows which steps there are.
      this.onZoom([Math.max(0, Math.round(from)), Math.max(0, Math.round(to))]);
    } else if (event.key === '0') {
      this.onZoom(null);
    } else if (event.key === 'Escape') {
      this.onPoint(this, null);
      return;
    } else return;
    event.preventDefault();
  }
}

// As many digits as tell a nearly constant line's ticks apart.
function distinctLabels(values, log) {
  let labels = values.map((value) => axisLabel(value, log));
  for (let digits = 5; digits < 9 && new Set(labels).size < labels.length; digits += 1) {
    labels = values.map((value) => number(value, digits));
  }
  return labels;
}

/** Whether a chart's vertical axis is logarithmic: never where values below 0 would be lost. */
export function logarithmic(scale, statistic, lines) {
  const any = (test) => lines.some(({mean}) => mean.some(test));
  if (scale === 'linear' || any((value) => value < 0) || !any((value) => value > 0)) return false;
  if (scale === 'log') return true;
  return statistic.scale === 'log' && spansDecade(lines.flatMap(({mean}) => Array.from(mean)));
}
