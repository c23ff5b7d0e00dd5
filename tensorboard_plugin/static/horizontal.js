// The horizontal axis of the layers' charts: recorded steps, the time since the run's first record,
// or the time of day. Cursor and zoom stay in steps, whatever is shown.

import {StepAxis} from './axis.js';
import {number, ticks, whole} from './format.js';

/** The axes by their names in the address. */
export const HORIZONTALS = {step: 'Step', relative: 'Relative time', wall: 'Wall time'};

const [MINUTE, HOUR, DAY] = [60, 3600, 86400];

// Sizes of steps between ticks that people count time in; below and above, 1, 2 and 5.
const TIME_STEPS = [
  1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 5 * DAY, 10 * DAY, 20 * DAY,
  50 * DAY, 100 * DAY, 200 * DAY, 500 * DAY, 1000 * DAY,
];

/** Seconds in words: "45 s", "2:30 min", "1:05 h", "3 d 4 h". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return 'unknown';
  const sign = seconds < 0 ? '−' : '';
  const size = Math.abs(seconds);
  const two = (value) => String(value).padStart(2, '0');
  const parts = (value, unit) => [Math.floor(value / unit), value % unit];
  if (size < MINUTE) return `${sign}${number(Number(size.toFixed(3)), 5)} s`;
  if (size < HOUR) {
    const [minutes, rest] = parts(Math.round(size), MINUTE);
    return `${sign}${minutes}:${two(rest)} min`;
  }
  if (size < DAY) {
    const [hours, rest] = parts(Math.round(size / MINUTE), MINUTE);
    return `${sign}${hours}:${two(rest)} h`;
  }
  const [days, rest] = parts(Math.round(size / HOUR), 24);
  return `${sign}${whole(days)} d${rest ? ` ${rest} h` : ''}`;
}

/** A time of day with its date, in the browser's time zone. */
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return 'unknown time';
  return date.toLocaleString('en-GB', {
    day: 'numeric', month: 'short', year: 'numeric',
    hour: '2-digit', minute: '2-digit', second: '2-digit',
  });
}

export class Horizontal {
  /**
   * @param {string} kind A name of `HORIZONTALS`.
   * @param {object} answer With the fields of a `StepAxis` and `first_wall_time` and
   *     `last_wall_time` of each column, in seconds.
   * @param {number} begin Wall time of the run's first record.
   */
  constructor(kind, answer, begin) {
    this.kind = kind;
    this.steps = new StepAxis(answer);
    this.begin = begin;
    this.firstTime = answer.first_wall_time.map(Number);
    this.lastTime = answer.last_wall_time.map(Number);
    // Where columns stand on the axis that is shown.
    this.places = kind === 'step' ? this.steps : this.#times(kind === 'relative' ? begin : 0);
    this.columns = this.steps.columns;
    this.middle = this.places.middle;
    this.edges = this.places.edges;
    const room = this.places.high > this.places.low ? 0 : 0.5;
    this.low = this.places.low - room;
    this.high = this.places.high + room;
  }

  /** The column at a place of the axis, or -1. */
  columnAt(place) {
    return this.places.columnAt(place);
  }

  /** The column at a step, or -1. */
  columnAtStep(step) {
    return step === null ? -1 : this.steps.columnAt(step);
  }

  /** The first and last step of the columns between two places, or null. */
  stepsWithin(low, high) {
    const [first, last] = [this.edges[0], this.edges[this.columns]];
    if (!this.columns || high <= first || low >= last) return null;
    const begin = this.columnAt(Math.max(low, first));
    const end = this.columnAt(Math.min(high, last));
    return begin < 0 || end < begin ? null : [this.steps.first[begin], this.steps.last[end]];
  }

  /** A column's steps and times in words. */
  describe(column) {
    const [from, to] = [this.firstTime[column], this.lastTime[column]];
    const middle = (from + to) / 2;
    return `${this.steps.name(column)}, ${duration(middle - this.begin)} after the first record, ` +
      clock(middle);
  }

  /** Round places for ticks on an axis of that many pixels. */
  ticks(width) {
    if (this.kind === 'step') return this.steps.ticks(width);
    const wanted = Math.max(2, width / 95);
    const rough = (this.high - this.low) / wanted;
    if (rough < 0.75) return ticks(this.low, this.high, wanted);
    const step = TIME_STEPS.find((size) => size >= rough * 0.75);
    if (!step) return ticks(this.low, this.high, wanted);
    // Ticks of wall time stand at full local minutes, hours and days.
    const offset = this.kind === 'wall'
      ? -MINUTE * new Date(this.low * 1000).getTimezoneOffset() : 0;
    const found = [];
    const low = this.kind === 'relative' ? Math.max(this.low, 0) : this.low;
    for (let at = Math.ceil((low + offset) / step); at * step - offset <= this.high; at += 1) {
      found.push(at * step - offset);
    }
    return found;
  }

  /** The texts of ticks. */
  labels(places) {
    if (this.kind === 'step') return places.map((step) => whole(step));
    if (this.kind === 'relative') return places.map(duration);
    const apart = places.length > 1 ? places[1] - places[0] : this.high - this.low;
    const shown = apart >= DAY ? {day: 'numeric', month: 'short'}
      : {hour: '2-digit', minute: '2-digit', ...(apart < MINUTE ? {second: '2-digit'} : {})};
    if (apart < 1) shown.fractionalSecondDigits = 2;
    return places.map((place) => new Date(place * 1000).toLocaleString('en-GB', shown));
  }

  // Clocks are set back, and a line cannot go back: such columns stand where the one before does.
  #times(origin) {
    let latest = -Infinity;
    const place = (time) => {
      if (time - origin > latest) latest = time - origin;
      return Number.isFinite(latest) ? latest : 0;
    };
    const first = [];
    const last = [];
    this.firstTime.forEach((time, column) => {
      first.push(place(time));
      last.push(place(this.lastTime[column]));
    });
    return new StepAxis({first_step: first, last_step: last, records: this.steps.records});
  }
}
