// One statistic of several layers over steps or time: a line each, with a band from minimum to
// maximum where records were bucketed, smoothed if wanted.

import {element} from './dom.js';
import {DASHES, faded, placeColor} from './layercolors.js';
import {NAMES_WIDTH, drawMarks} from './linemarks.js';
import {Plot, axisLabel, points, spansDecade} from './plot.js';
import {smooth} from './smoothing.js';

// Of each layer, in this order: uPlot's series. Series 0 are the places on the axis.
const SERIES = 4;

const PLAIN_KEYS = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10};
const ZOOM_KEYS = {'+': 0.5, '=': 0.5, '-': 2, _: 2};

export class LineChart extends Plot {
  /**
   * @param {{onPoint: function(LineChart, ?number, {x: number, y: number}, boolean),
   *     onZoom: function(?number[])}} listeners `onPoint` gets a column, a point of the page, and
   *     whether the keyboard moved; a zoom is `[first, last]` step, or null for all.
   */
  constructor({onPoint, onZoom}) {
    super(element('div', {class: 'plot', role: 'application', tabIndex: 0}));
    this.onPoint = onPoint;
    this.onZoom = onZoom;
    this.name = element('span', {class: 'name'});
    this.note = element('span', {class: 'value'});
    this.heading = element('div', {class: 'heading'}, this.name, this.note);
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
    Object.assign(this, {horizontal, statistic, lines, smoothing});
    this.log = logarithmic(scale, statistic, lines);
    this.name.textContent = statistic.label;
    this.heading.title = statistic.description;
    this.root.dataset.statistic = statistic.name;
    this.root.dataset.log = this.log;
    this.note.textContent = this.#noteText(scale);
    this.make(this.#data(), {
      range: horizontal, places: (places) => horizontal.labels(places), log: this.log,
      series: lines.flatMap(({place}) => this.#series(place)),
      bands: horizontal.steps.bucketed ? lines.map((_, index) => ({
        series: [SERIES * index + 2, SERIES * index + 1],
        fill: () => faded(this.#color(SERIES * index + 1), lines.length > 3 ? 0.14 : 0.22),
      })) : [],
      points: {
        size: (plot, series) => (series % SERIES === this.#mainSeries ? 7 : 0),
        fill: (plot, series) => this.#color(series),
      },
      right: NAMES_WIDTH,
    });
    this.#describe();
  }

  /** Takes the button that pins what is shown; one for the same stays, with its focus. */
  setPin(button) {
    if (this.pin?.dataset.pin === button.dataset.pin) this.pin.refresh();
    else {
      this.pin?.remove();
      this.pin = button;
      this.heading.append(button);
    }
  }

  /** Smooths anew; the vertical scale stays, so that a moved slider moves lines alone. */
  setSmoothing(smoothing) {
    this.smoothing = smoothing;
    if (this.plot) this.plot.setData(this.#data());
  }

  /** Puts the vertical cursor at a column, or takes it away for -1. */
  setCursor(column) {
    this.column = column;
    super.setCursor(column < 0 ? null : this.horizontal.middle[column]);
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

  moved(place, point) {
    if (place === null) this.onPoint(this, null);
    else this.#point(this.horizontal.columnAt(place), point, false);
  }

  dragged(low, high) {
    const range = this.horizontal.stepsWithin(low, high);
    if (range) this.onZoom(range);
  }

  decorate(plot) {
    drawMarks(plot, this);
  }

  #point(column, point, keyboard) {
    this.onPoint(this, column < 0 ? null : column, point, keyboard);
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
      this.#point(column, {x: box.left + left, y: box.top + box.height / 3}, true);
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

/** Whether a chart's vertical axis is logarithmic: never where values below 0 would be lost. */
export function logarithmic(scale, statistic, lines) {
  const any = (test) => lines.some(({mean}) => mean.some(test));
  if (scale === 'linear' || any((value) => value < 0) || !any((value) => value > 0)) return false;
  if (scale === 'log') return true;
  return statistic.scale === 'log' && spansDecade(lines.flatMap(({mean}) => Array.from(mean)));
}
