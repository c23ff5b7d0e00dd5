// What happened at single steps, found in an answer of `steps`: skips, clipping, loss-scale changes.

import {count, exact, number, whole} from './format.js';

/**
 * @typedef {{column: number, kind: string, size: number, text: string}} Event `kind` names its
 *     mark, `size` is from 0 to 1, `text` says what happened.
 * @typedef {{name: string, label: string, about: string, events: Event[], summary: string}} Lane
 */

/**
 * The lanes with any event, top down.
 * @param {object} answer Of `steps`.
 * @returns {Lane[]}
 */
export function findEvents(answer) {
  const columns = answer.first_step.length;
  const values = (name) => {
    const index = answer.quantities.findIndex((quantity) => quantity.name === name);
    if (index < 0) return null;
    const part = (array) =>
      answer[array].values.subarray(index * columns, (index + 1) * columns);
    return {minimum: part('minimum'), mean: part('mean'), maximum: part('maximum')};
  };
  const lanes = [
    skips(values('skipped'), answer.records, columns), clips(values('clip_factor'), answer.records > columns),
    scales(values('loss_scale')),
  ];
  return lanes.filter((lane) => lane && lane.events.length);
}

// How many records a column holds, as the server parts them.
function recordsOf(column, records, columns) {
  const begin = (place) => Math.floor((place * records) / columns);
  return begin(column + 1) - begin(column);
}

function skips(values, records, columns) {
  if (!values) return null;
  const events = [];
  let total = 0;
  values.maximum.forEach((maximum, column) => {
    if (!(maximum > 0)) return;
    const amount = Math.max(1, Math.round(
      values.mean[column] * recordsOf(column, records, columns)));
    total += amount;
    events.push({column, kind: 'skip', size: 1, text: `${count(amount, 'step')} skipped`});
  });
  return {
    name: 'skipped', label: 'Skipped steps', events, summary: whole(total),
    about: 'Steps without an update, because a gradient was not finite.',
  };
}

// How many of a column's records were clipped is not known, so there is no share of them then.
function clips(values, bucketed) {
  if (!values) return null;
  const events = [];
  let recorded = 0;
  values.minimum.forEach((minimum, column) => {
    recorded += !Number.isNaN(minimum);
    if (!(minimum < 1)) return;
    const mean = Number.isFinite(values.mean[column]) ? values.mean[column] : minimum;
    const factor = minimum === values.maximum[column]
      ? exact(minimum) : `${exact(mean)}, lowest ${exact(minimum)}`;
    events.push({
      column, kind: 'clip', size: Math.min(1, Math.max(0, 1 - mean)), text: `Clip factor ${factor}`,
    });
  });
  const percent = (100 * events.length) / recorded;
  return {
    name: 'clipped', label: 'Clipping', events,
    summary: bucketed ? '' : percent < 1 ? '<1%' : `${number(percent, 3)}%`,
    about: 'Gradients that the clip made smaller; the taller a bar, the more. ' +
      'The number is the share of steps.',
  };
}

// A column with several records may hold several changes; the lowest and highest value tell which.
function scales(values) {
  if (!values) return null;
  const events = [];
  let before = NaN;
  values.minimum.forEach((low, column) => {
    const high = values.maximum[column];
    if (Number.isNaN(low)) return;
    const down = low < before || (low < high && !(high > before));
    const up = high > before;
    if (up || down) {
      const from = Number.isNaN(before) ? '' : `from ${exact(before)} `;
      const to = low === high ? `to ${exact(low)}` : `within ${exact(low)} and ${exact(high)}`;
      const kind = up && down ? 'both' : down ? 'down' : 'up';
      events.push({column, kind, size: 1, text: `Loss scale ${from}${to}`});
    }
    // Of a column that both ends are seen in, the end that it did not begin with is its last.
    before = low === high || down ? low : high;
  });
  return {
    name: 'loss-scale', label: 'Loss scale', events, summary: whole(events.length),
    about: 'Changes of the loss scale: down after an overflow, up after many steps without.',
  };
}
