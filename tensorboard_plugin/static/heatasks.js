// How the overview asks for its heatmap: what is painted first, the exact numbers behind it.

import {askArrays} from './api.js';

// What is painted, and what a tooltip tells besides.
const PAINTED = ['mean', 'nonfinite'];
const TOLD = ['minimum', 'maximum'];

/**
 * Asks for what is painted. Of a large run that the server has yet to read, a sample comes first.
 * @param {object} asked Parameters of `heatmap`.
 * @param {AbortSignal} signal
 * @param {function(object): Promise} onSample Gets an answer to a random sample of the records.
 * @returns {Promise<object>} The answer to all records, without minimum and maximum.
 */
export async function askCells(asked, signal, onSample) {
  const cells = {...asked, array: PAINTED};
  const heat = await askArrays('heatmap', {...cells, sample: 'allowed'}, signal);
  if (!heat.sampled) return heat;
  const all = askArrays('heatmap', cells, signal);
  all.catch(() => {}); // Told where it is waited for.
  if (heat.records) await onSample(heat);
  return all;
}

/** Adds minimum and maximum to an answer of `askCells`, unless the run has changed since. */
export async function askExact(heat, asked, signal) {
  const found = await askArrays('heatmap', {...asked, array: TOLD}, signal);
  const same = ['records', 'first_step', 'last_step', 'variables'].every((name) =>
    JSON.stringify(found[name]) === JSON.stringify(heat[name]));
  if (same) for (const name of TOLD) heat[name] = found[name];
}
