// The horizontal axis that the heatmap and all lines share: recorded steps.

import {CANVAS_FONT, css, prepare} from './dom.js';
import {ticks, whole} from './format.js';

/** Columns of recorded steps, placed on a linear axis of steps. */
export class StepAxis {
  /** Takes an answer with `first_step` and `last_step` of each column, and `records`. */
  constructor({first_step: first, last_step: last, records}) {
    this.first = first;
    this.last = last;
    this.records = records;
    this.columns = first.length;
    this.middle = first.map((step, column) => (step + last[column]) / 2);
    // A column reaches half-way to its neighbours; the outer ones as far out as in.
    this.edges = new Float64Array(this.columns + 1);
    for (let column = 1; column < this.columns; column += 1) {
      this.edges[column] = (last[column - 1] + first[column]) / 2;
    }
    if (this.columns === 1) {
      this.edges[0] = first[0] - 0.5;
      this.edges[1] = last[0] + 0.5;
    } else if (this.columns > 1) {
      const end = this.columns - 1;
      this.edges[0] = first[0] - (first[1] - last[0]) / 2;
      this.edges[end + 1] = last[end] + (first[end] - last[end - 1]) / 2;
    }
    this.low = this.columns ? this.edges[0] : 0;
    this.high = this.columns ? this.edges[this.columns] : 1;
  }

  /** Whether any column holds several records. */
  get bucketed() {
    return this.records > this.columns;
  }

  /** The column at a step, or -1 outside. */
  columnAt(step) {
    if (!this.columns || !(step >= this.low) || step > this.high) return -1;
    let low = 0;
    let high = this.columns - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.edges[middle] <= step) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /**
   * The first and last recorded step of the columns that a range of steps touches, or null where
   * it touches none.
   */
  recordsWithin(low, high) {
    const begin = this.first.findIndex((_, column) => this.edges[column + 1] > low);
    let end = this.columns - 1;
    while (end >= 0 && this.edges[end] >= high) end -= 1;
    return begin < 0 || end < begin ? null : [this.first[begin], this.last[end]];
  }

  /** A column in words: "Step 120" or "Steps 120 to 150". */
  name(column) {
    const first = whole(this.first[column]);
    const last = whole(this.last[column]);
    return first === last ? `Step ${first}` : `Steps ${first} to ${last}`;
  }

  /** Round steps for ticks on an axis of that many pixels. */
  ticks(width) {
    return ticks(Math.max(this.low, 0), this.high, width / 90, true);
  }
}

/** Draws ticks and numbers of an axis into a canvas strip. */
export function drawAxis(canvas, axis, width, height) {
  const context = prepare(canvas, width, height);
  const scale = width / (axis.high - axis.low);
  context.font = CANVAS_FONT;
  context.fillStyle = css('--dim');
  context.strokeStyle = css('--strong-line');
  context.textBaseline = 'top';
  for (const step of axis.ticks(width)) {
    const x = Math.round((step - axis.low) * scale) + 0.5;
    const text = whole(step);
    const half = context.measureText(text).width / 2;
    context.beginPath();
    context.moveTo(Math.min(x, width - 0.5), 0);
    context.lineTo(Math.min(x, width - 0.5), 5);
    context.stroke();
    context.textAlign = 'center';
    context.fillText(text, Math.max(half, Math.min(width - half, x)), 8);
  }
}
