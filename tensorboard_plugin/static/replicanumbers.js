// The numbers beside the charts of replicas, and the words about the batch.

import {NOT_FINITE, PALETTE, rgb} from './colors.js';
import {element} from './dom.js';
import {count, exact, number, whole} from './format.js';
import {lineKey} from './multiline.js';
import {median} from './replicasummary.js';
import {rowOf} from './stack.js';

// The mean in a column; what is not finite where it is the only record.
function valueAt({minimum, mean, nonfinite}, column) {
  if (!nonfinite[column] && Number.isNaN(mean[column])) return 'not recorded';
  return exact(Number.isNaN(mean[column]) ? minimum[column] : mean[column]);
}

/**
 * Of each of a few replicas its value in a column, or the last ones where it is null.
 * @returns {Node[]}
 */
export function fewNumbers(lines, column) {
  return [element('ul', {class: 'line-values'}, ...lines.map((line, replica) => {
    const last = line.mean.findLast((value) => Number.isFinite(value));
    const text = column === null
      ? (last === undefined ? '–' : number(last)) : valueAt(line, column);
    return element(
      'li', {}, lineKey(replica), element('span', {class: 'replica-number'}, String(replica)),
      element('span', {class: 'replica-value'}, text));
  }))];
}

/**
 * The colours of a heatmap, and in a column the extremes and the median over the replicas.
 * @returns {Node[]}
 */
export function manyNumbers(lines, column, scale) {
  const bar = element('i', {class: 'color-bar', aria: {hidden: true}});
  const stops = [0, 64, 128, 192, 255].map((shade) => rgb(PALETTE[shade]));
  bar.style.background = `linear-gradient(to right, ${stops.join(', ')})`;
  const legend = element(
    'div', {class: 'color-legend'}, bar,
    element('span', {}, number(scale.low, 3)), element('span', {}, number(scale.high, 3)));
  if (lines.some(({nonfinite}) => nonfinite.some((amount) => amount > 0))) {
    const swatch = element('i', {class: 'swatch'});
    swatch.style.background = rgb(NOT_FINITE);
    legend.append(element('span', {class: 'not-finite'}, swatch, ' NaN or infinite'));
  }
  if (column === null) return [legend];
  const known = lines.map(({mean}, replica) => ({replica, value: mean[column]}))
    .filter(({value}) => Number.isFinite(value)).sort((a, b) => a.value - b.value);
  if (!known.length) return [legend, element('small', {}, 'not recorded')];
  const [low, high] = [known[0], known.at(-1)];
  return [legend, ...[
    `highest ${number(high.value)}, replica ${high.replica}`,
    `median ${number(median(known.map(({value}) => value)))}`,
    `lowest ${number(low.value)}, replica ${low.replica}`,
  ].map((text) => element('small', {}, text))];
}

/**
 * The gradient noise scale against the batch, as `health/progress.py` judges it: the second half.
 * @param {object} steps An answer of `steps`.
 * @param {{replicas: number}} answer Of `replicas`.
 */
export function noiseWords(steps, {replicas}) {
  const columns = steps.first_step.length;
  const mean = (name) => {
    const index = steps.quantities.findIndex((quantity) => quantity.name === name);
    return index < 0 ? null : rowOf(steps, index, columns).mean;
  };
  const [noise, rate, time] = ['noise_scale', 'examples_per_second', 'step_seconds'].map(mean);
  if (!noise || !rate || !time) return '';
  const half = Array.from(noise.subarray(columns >> 1)).filter((value) => value > 0);
  const scale = median(half);
  const batch = median(Array.from(rate, (value, column) => value * time[column])
    .filter((value) => value > 0));
  if (!(batch > 0)) return '';
  const global = `Global batch about ${count(batch, 'example')}, ` +
    `${number(batch / replicas, 3)} on each replica.`;
  if (!(scale > 0)) return `${global} The gradient noise scale was not recorded.`;
  const factor = batch / scale;
  const against = factor > 2
    ? `the batch is ${number(factor, 2)} times as large: more examples a step help little`
    : factor < 0.5
      ? `${number(1 / factor, 2)} times the batch: more examples a step would save steps`
      : 'about as large as the batch, which is a good place to be';
  return `${global} Gradient noise scale about ${whole(scale)}; ${against}.`;
}
