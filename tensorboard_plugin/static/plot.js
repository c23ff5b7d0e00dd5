// What all charts of lines share around uPlot: scales and their numbers, the cursor, zooming by a
// drag, and marks over the lines. What the lines are is the subclasses', and their listeners
// `onCursor` and `onZoom`.

import uPlot from './vendor/uPlot/uPlot.esm.js';
import {NOT_FINITE, rgb} from './colors.js';
import {CANVAS_FONT, css} from './dom.js';
import {number, power, ticks} from './format.js';

/** Width of the numbers left of a plot. */
export const NUMBERS_WIDTH = 58;

const STEPS_HEIGHT = 24;

export class Plot {
  /** @param {Element} box Where the plot goes; its size is the plot's. */
  constructor(box) {
    this.box = box;
    this.plot = null;
  }

  /**
   * Draws lines in place of those before.
   * @param {Array<Array<?number>>} data As uPlot has it: places, and the values of each series.
   * @param {object} chart
   * @param {{low: number, high: number, ticks: function(number): number[]}} chart.range Of the
   *     horizontal axis; `ticks` gets its width in pixels.
   * @param {?function(number[]): string[]} chart.places Texts below the ticks; null for no axis.
   * @param {boolean} chart.log Whether the vertical axis is logarithmic.
   * @param {object[]} chart.series Of uPlot, without the first, which are the places.
   * @param {object[]} chart.bands Of uPlot.
   * @param {object} chart.points Of uPlot: the points on the lines at the cursor.
   * @param {number} chart.right Free pixels right of the plot.
   */
  make(data, {range, places = null, log, series, bands = [], points: dots = {}, right = 0}) {
    this.destroy();
    const {clientWidth: width, clientHeight: height} = this.box;
    const axis = {
      font: CANVAS_FONT, stroke: () => css('--dim'), grid: {stroke: () => css('--line'), width: 1},
      ticks: {show: false}, gap: 6,
    };
    this.plot = new uPlot({
      width, height, series: [{}, ...series], bands, legend: {show: false},
      padding: [8, right, places ? 0 : 6, 0],
      cursor: {
        drag: {x: true, y: false, setScale: false, dist: 5}, y: false,
        points: {size: 7, stroke: () => css('--page'), ...dots},
      },
      scales: {
        x: {time: false, range: () => [range.low, range.high]},
        y: log ? {distr: 3, range: paddedLog} : {range: padded},
      },
      axes: [
        {
          ...axis, size: places ? STEPS_HEIGHT : 0,
          splits: (plot) => range.ticks(plot.bbox.width / devicePixelRatio),
          values: (plot, splits) => (places ? places(splits) : splits.map(() => '')),
        },
        {
          ...axis, size: NUMBERS_WIDTH, space: 26,
          splits: (plot, index, low, high) => axisNumbers(low, high, log, plot.bbox.height),
          filter: (plot, splits) => splits,
          values: (plot, splits) => axisLabels(splits, log),
        },
      ],
      hooks: {
        setCursor: [(plot) => this.#moved(plot)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => this.decorate(plot)],
      },
    }, data, this.box);
  }

  /** Puts the vertical cursor at a place of the axis, or takes it away where it is null. */
  setCursor(place) {
    if (!this.plot) return;
    const left = place === null ? -10 : this.plot.valToPos(place, 'x');
    this.quiet = true;
    this.plot.setCursor({left, top: place === null ? -10 : 0});
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

  /**
   * The pointer is at a place of the axis, or has left where it is null.
   * @param {?number} place
   * @param {?{x: number, y: number}} point Of the page.
   */
  moved(place, point) {
    void point;
    this.onCursor(place);
  }

  /** A drag went from one place of the axis to another. */
  dragged(low, high) {
    this.onZoom(low, high);
  }

  /** Draws over the lines. */
  decorate(plot) {
    void plot;
  }

  #moved(plot) {
    if (this.quiet) return;
    const {left, top} = plot.cursor;
    if (left === undefined || left < 0) {
      this.moved(null, null);
      return;
    }
    const box = plot.over.getBoundingClientRect();
    this.moved(plot.posToVal(left, 'x'), {x: box.left + left, y: box.top + top});
  }

  #selected(plot) {
    const {left, width} = plot.select;
    if (!width) return;
    plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
    this.dragged(plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x'));
  }
}

/** Fills a part of a plot's height from a column's one edge to the other, two pixels at least. */
export function fillColumn(plot, edges, column, top, height) {
  const left = plot.valToPos(edges[column], 'x', true);
  const right = plot.valToPos(edges[column + 1], 'x', true);
  plot.ctx.fillRect(left, top, Math.max(right - left, 2 * devicePixelRatio), height);
}

/** A red mark at the top for each column with values that are not finite. */
export function markNotFinite(plot, edges, nonfinite) {
  plot.ctx.fillStyle = rgb(NOT_FINITE);
  nonfinite.forEach((amount, column) => {
    if (amount) fillColumn(plot, edges, column, plot.bbox.top, 5 * devicePixelRatio);
  });
}

/** A dashed line at a statistic's usual value, where it is in sight. */
export function markTarget(plot, {target}) {
  const {ctx: context, bbox} = plot;
  const {min, max} = plot.scales.y;
  if (!target || target <= min || target >= max) return;
  const pixel = devicePixelRatio;
  const y = Math.round(plot.valToPos(target, 'y', true));
  context.setLineDash([4 * pixel, 4 * pixel]);
  context.lineWidth = pixel;
  context.strokeStyle = css('--dim');
  context.beginPath();
  context.moveTo(bbox.left, y);
  context.lineTo(bbox.left + bbox.width, y);
  context.stroke();
}

/** Draws within a plot's area alone. */
export function clipped({ctx: context, bbox}, draw) {
  context.save();
  context.beginPath();
  context.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  context.clip();
  draw();
  context.restore();
}

/** Values as uPlot wants them: gaps are null, and a logarithm has no place for 0 or less. */
export function points(values, log) {
  return Array.from(values, (value) =>
    (Number.isFinite(value) && (!log || value > 0) ? value : null));
}

/** Whether the positive values reach over a power of ten. */
export function spansDecade(values) {
  let low = Infinity;
  let high = 0;
  for (const value of values) {
    if (value > 0 && value < Infinity) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return high / low >= 10;
}

function padded(plot, low, high) {
  if (low === null || low === undefined) return [0, 1];
  // Below float32's own rounding there is no difference to be seen.
  const differ = high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high));
  const room = differ ? 0.06 * (high - low) : 0.05 * (Math.abs(high) || 1);
  const least = low >= 0 && low - room < 0 ? 0 : low - room;
  return [least, high + room];
}

function paddedLog(plot, low, high) {
  if (!(low > 0)) return [0.1, 1];
  const room = (high / low) ** 0.06;
  return [low / room, high * room];
}

// Where a plot's numbers stand: on a logarithmic scale powers of ten, with others between few.
function axisNumbers(low, high, log, height) {
  const most = Math.max(2, Math.floor(height / devicePixelRatio / 20));
  if (!log) return ticks(low, high, most);
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const found = [];
  if (last - first < 2) {
    for (let exponent = first - 1; exponent <= last; exponent += 1) {
      for (const factor of last - first < 1 ? [1, 2, 5] : [1, 3]) {
        const value = factor * 10 ** exponent;
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found;
  }
  const every = Math.max(1, Math.ceil((last - first + 1) / most));
  for (let exponent = first; exponent <= last; exponent += every) found.push(10 ** exponent);
  return found;
}

/** A number beside an axis; decades of a logarithmic one are powers. */
export function axisLabel(value, log) {
  const exponent = Math.log10(value);
  const decade = log && Math.abs(exponent - Math.round(exponent)) < 1e-9;
  return decade && Math.abs(exponent) > 1.5 ? power(Math.round(exponent)) : number(value, 4);
}

// As many digits as tell a nearly constant line's ticks apart.
function axisLabels(values, log) {
  let labels = values.map((value) => axisLabel(value, log));
  for (let digits = 5; digits < 9 && new Set(labels).size < labels.length; digits += 1) {
    labels = values.map((value) => number(value, digits));
  }
  return labels;
}
