// One quantity of all replicas over the steps: lines of a few, a heatmap of many.

import {colorScale} from './colors.js';
import {MOST_LINES, MultiLine} from './multiline.js';
import {ReplicaHeat, heatHeight} from './replicaheat.js';
import {fewNumbers, manyNumbers} from './replicanumbers.js';
import {median} from './replicasummary.js';
import {rowOf} from './stack.js';

/** Most replicas drawn: a canvas takes no more, nor does an eye. */
export const MOST_DRAWN = 1024;

// A logarithm where one record, such as the one with the tracing, would flatten all others.
const OUTLYING = 10;

/** Of each replica its arrays of a quantity, as of `rowOf`, or null where there is none. */
export function linesOfReplicas({first_step: {length}, replicas, quantities, ...answer}, name) {
  const index = quantities.findIndex((quantity) => quantity.name === name);
  return index < 0 ? null : Array.from({length: replicas}, (_, replica) =>
    rowOf(answer, replica * quantities.length + index, length));
}

export class ReplicaChart {
  /**
   * @param {StepAxis} axis
   * @param {object} quantity
   * @param {object[]} lines Of each replica, its arrays.
   * @param {Tooltip} tooltip For the cells of a heatmap.
   */
  constructor(axis, quantity, lines, tooltip) {
    const {shown, drawn} = inUnits(quantity, lines.slice(0, MOST_DRAWN));
    this.many = drawn.length > MOST_LINES;
    Object.assign(this, {axis, quantity: shown, lines: drawn, tooltip});
    // Colours leave single outliers out anyway, so times need no logarithm.
    this.scale = this.many
      ? colorScale({...shown, scale: quantity.scale}, flat(drawn, quantity)) : null;
  }

  /** The height in pixels that suits it. */
  get height() {
    const {length} = this.lines;
    return this.many ? Math.max(96, heatHeight(length)) : Math.max(118, 54 + 19 * length);
  }

  /**
   * @param {Element} box
   * @param {{onCursor: function(?number), onZoom: function(number, number)}} listeners In steps.
   * @returns {MultiLine|ReplicaHeat}
   */
  make(box, listeners) {
    const {axis, lines, many, quantity, scale} = this;
    return many
      ? new ReplicaHeat(
        box, {...listeners, onCell: (cell) => this.#hover(cell)}, axis, scale, lines)
      : new MultiLine(box, listeners, axis, quantity, lines);
  }

  /** The numbers in a column, or the last ones where it is null: elements. */
  readout(column) {
    return this.many
      ? manyNumbers(this.lines, column, this.scale) : fewNumbers(this.lines, column);
  }

  #hover(cell) {
    const {axis, lines, quantity, tooltip} = this;
    if (cell === null) {
      tooltip.hide();
      return;
    }
    const answer = {
      statistic: {label: quantity.label}, variables: {[cell.row]: `Replica ${cell.row}`},
    };
    const at = cell.row * axis.columns + cell.column;
    for (const name of ['minimum', 'mean', 'maximum', 'nonfinite']) {
      answer[name] = {values: {[at]: lines[cell.row][name][cell.column]}};
    }
    tooltip.show(cell, answer, axis);
  }
}

// The first step's time, with its tracing, would take all the colours.
function flat(lines, {name} = {name: ''}) {
  const columns = lines[0].mean.length;
  const from = name.endsWith('_seconds') && columns > 4 ? 1 : 0;
  const found = new Float32Array(lines.length * (columns - from));
  lines.forEach(({mean}, index) => found.set(mean.subarray(from), index * (columns - from)));
  return found;
}

// Times in milliseconds where most are below a second; logarithmic where one is far off.
function inUnits(quantity, lines) {
  if (!quantity.name.endsWith('_seconds')) return {shown: quantity, drawn: lines};
  const values = flat(lines);
  const usual = median(values);
  const highest = values.reduce((a, b) => (b > a && b < Infinity ? b : a), 0);
  const factor = usual < 1 ? 1000 : 1;
  const shown = {
    ...quantity, label: `${quantity.label}, ${factor === 1 ? 's' : 'ms'}`,
    scale: highest > OUTLYING * usual ? 'log' : quantity.scale,
  };
  const times = (array) => array.map((value) => value * factor);
  const drawn = lines.map(({minimum, mean, maximum, nonfinite}) => ({
    minimum: times(minimum), mean: times(mean), maximum: times(maximum), nonfinite,
  }));
  return {shown, drawn};
}
