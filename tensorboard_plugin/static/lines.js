// One line over the steps, with a band from minimum to maximum where records were bucketed.

import {css} from './dom.js';
import {whole} from './format.js';
import {Plot, clipped, markNotFinite, markTarget, points, spansDecade} from './plot.js';

export class Line extends Plot {
  /**
   * @param {Element} box Where the plot goes; its size is the plot's.
   * @param {{showSteps: boolean, onCursor: function(?number), onZoom: function(number, number)}}
   *     options Cursor and zoom are in steps.
   */
  constructor(box, {showSteps, onCursor, onZoom}) {
    super(box);
    Object.assign(this, {showSteps, onCursor, onZoom});
  }

  /**
   * @param {object} axis A `StepAxis` for the line's columns.
   * @param {object} statistic
   * @param {{minimum, mean, maximum, nonfinite}} values Float32Arrays, one value a column.
   * @param {{low: number, high: number}} range Of the steps shown.
   */
  show(axis, statistic, values, range = axis) {
    Object.assign(this, {axis, statistic, values});
    const log = statistic.scale === 'log' && spansDecade(values.mean);
    const hidden = {stroke: () => 'transparent', width: 0, points: {show: false}};
    const line = {
      stroke: () => css('--series'), width: 1.5, spanGaps: false,
      points: {show: axis.columns < 40, size: 5, fill: () => css('--series')},
    };
    this.make(
      [axis.middle, ...['mean', 'minimum', 'maximum'].map((name) => points(values[name], log))], {
        range: range.ticks ? range : {low: range.low, high: range.high, ticks: (width) =>
          axis.ticks(width)},
        places: this.showSteps ? (steps) => steps.map(whole) : null,
        log, series: [line, hidden, hidden],
        bands: axis.bucketed ? [{series: [3, 2], fill: () => css('--band')}] : [],
        points: {size: (plot, series) => (series === 1 ? 7 : 0), fill: () => css('--series')},
      });
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

  decorate(plot) {
    clipped(plot, () => {
      markNotFinite(plot, this.axis.edges, this.values.nonfinite);
      markTarget(plot, this.statistic);
    });
  }
}
