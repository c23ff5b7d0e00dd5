// One line over the steps, with a band from minimum to maximum where records were bucketed.

import uPlot from './vendor/uPlot/uPlot.esm.js';
import {NOT_FINITE, rgb} from './colors.js';
import {CANVAS_FONT, css} from './dom.js';
import {number, power, ticks} from './format.js';

/** Width of the numbers left of a plot. */
export const NUMBERS_WIDTH = 58;

// uPlot leaves gaps at null, and a logarithm has no place for 0 or less.
function points(values, log) {
  return Array.from(values, (value) =>
    (Number.isFinite(value) && (!log || value > 0) ? value : null));
}

function spansDecade(values) {
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

export class Line {
  /**
   * @param {Element} box Where the plot goes; its size is the plot's.
   * @param {{showSteps: boolean, onCursor: function(?number), onZoom: function(number, number)}}
   *     options Cursor and zoom are in steps.
   */
  constructor(box, {showSteps, onCursor, onZoom}) {
    this.box = box;
    this.showSteps = showSteps;
    this.onCursor = onCursor;
    this.onZoom = onZoom;
  }

  /**
   * @param {object} axis A `StepAxis` for the line's columns.
   * @param {object} statistic
   * @param {{minimum, mean, maximum, nonfinite}} values Float32Arrays, one value a column.
   * @param {{low: number, high: number}} range Of the steps shown.
   */
  show(axis, statistic, values, range = axis) {
    this.destroy();
    this.axis = axis;
    this.values = values;
    const log = statistic.scale === 'log' && spansDecade(values.mean);
    this.range = range;
    const data = [
      axis.middle, ...['mean', 'minimum', 'maximum'].map((name) => points(values[name], log))];
    this.plot = new uPlot(this.#options(log, statistic), data, this.box);
  }

  /** The mean at a step, or at the last column that has one where the step is null. */
  valueAt(step) {
    if (!this.axis || !this.axis.columns) return NaN;
    if (step !== null) {
      const column = this.axis.columnAt(step);
      if (column < 0) return undefined;
      const mean = this.values.mean[column];
      return Number.isNaN(mean) ? this.values.minimum[column] : mean;
    }
    for (let column = this.axis.columns - 1; column >= 0; column -= 1) {
      if (Number.isFinite(this.values.mean[column])) return this.values.mean[column];
    }
    return NaN;
  }

  /** Puts the vertical cursor at a step, or takes it away. */
  setCursor(step) {
    if (!this.plot) return;
    const left = step === null ? -10 : this.plot.valToPos(step, 'x');
    this.quiet = true;
    this.plot.setCursor({left, top: step === null ? -10 : 0});
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

  #options(log, statistic) {
    const hidden = {stroke: () => 'transparent', width: 0, points: {show: false}};
    const grid = {stroke: () => css('--line'), width: 1};
    const text = {font: CANVAS_FONT, stroke: () => css('--dim')};
    return {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [8, 0, this.showSteps ? 0 : 6, 0],
      legend: {show: false},
      cursor: {
        drag: {x: true, y: false, setScale: false, dist: 5},
        y: false,
        points: {
          size: (plot, series) => (series === 1 ? 7 : 0),
          fill: () => css('--series'),
          stroke: () => css('--page'),
        },
      },
      scales: {
        x: {time: false, range: () => [this.range.low, this.range.high]},
        y: log ? {distr: 3, range: paddedLog} : {range: padded},
      },
      series: [
        {},
        {
          stroke: () => css('--series'), width: 1.5, spanGaps: false,
          points: {show: this.axis.columns < 40, size: 5, fill: () => css('--series')},
        },
        hidden,
        hidden,
      ],
      bands: this.axis.bucketed ? [{series: [3, 2], fill: () => css('--band')}] : [],
      axes: [
        {
          ...text, grid, ticks: {show: false}, size: this.showSteps ? 24 : 0, gap: 6,
          splits: (plot) => this.axisTicks(plot.bbox.width / devicePixelRatio),
          values: (plot, splits) =>
            splits.map((step) => (this.showSteps ? step.toLocaleString('en') : '')),
        },
        {
          ...text, grid, ticks: {show: false}, size: NUMBERS_WIDTH, gap: 6, space: 26,
          splits: (plot, index, low, high) => numbers(low, high, log, plot.bbox.height),
          filter: (plot, splits) => splits,
          values: (plot, splits) => splits.map((value) => label(value, log)),
        },
      ],
      hooks: {
        setCursor: [(plot) => this.#moved(plot)],
        setSelect: [(plot) => this.#selected(plot)],
        draw: [(plot) => this.#decorate(plot, statistic)],
      },
    };
  }

  axisTicks(width) {
    return this.range.ticks ? this.range.ticks(width) : this.axis.ticks(width);
  }

  #moved(plot) {
    if (this.quiet) return;
    const {left} = plot.cursor;
    this.onCursor(left === undefined || left < 0 ? null : plot.posToVal(left, 'x'));
  }

  #selected(plot) {
    const {left, width} = plot.select;
    if (!width) return;
    plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
    this.onZoom(plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x'));
  }

  // A red mark at the top for each column with values that are not finite, and the target's line.
  #decorate(plot, statistic) {
    const {ctx: context, bbox} = plot;
    const pixel = devicePixelRatio;
    context.save();
    context.beginPath();
    context.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    context.clip();
    context.fillStyle = rgb(NOT_FINITE);
    this.values.nonfinite.forEach((amount, column) => {
      if (!amount) return;
      const left = plot.valToPos(this.axis.edges[column], 'x', true);
      const right = plot.valToPos(this.axis.edges[column + 1], 'x', true);
      context.fillRect(left, bbox.top, Math.max(right - left, 2 * pixel), 5 * pixel);
    });
    const {min, max} = plot.scales.y;
    if (statistic.target && statistic.target > min && statistic.target < max) {
      const y = Math.round(plot.valToPos(statistic.target, 'y', true));
      context.setLineDash([4 * pixel, 4 * pixel]);
      context.lineWidth = pixel;
      context.strokeStyle = css('--dim');
      context.beginPath();
      context.moveTo(bbox.left, y);
      context.lineTo(bbox.left + bbox.width, y);
      context.stroke();
    }
    context.restore();
  }
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
function numbers(low, high, log, height) {
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

function label(value, log) {
  const exponent = Math.log10(value);
  const decade = log && Math.abs(exponent - Math.round(exponent)) < 1e-9;
  return decade && Math.abs(exponent) > 1.5 ? power(Math.round(exponent)) : number(value, 4);
}

// For charts of several lines.
export {label as axisLabel, numbers as axisNumbers, padded, paddedLog, points, spansDecade};
