// Asks a route for several variables whose paths may be too long for one request's address.

import {AnswerError, askArrays} from './api.js';

// A server may refuse an address above 64 KiB.
const MOST_LETTERS = 30000;

// Groups of paths, each short enough; a path that is too long by itself is alone.
function groups(paths) {
  const found = [];
  let letters = Infinity;
  for (const path of paths) {
    const length = encodeURIComponent(path).length;
    if (letters + length > MOST_LETTERS) {
      found.push([]);
      letters = 0;
    }
    found[found.length - 1].push(path);
    letters += length;
  }
  return found;
}

/**
 * As `askArrays`, for `series` and `histograms`.
 * @param {string} route
 * @param {string[]} paths Of variables, at least one: the arrays' first axis.
 * @param {object} parameters The others.
 * @param {AbortSignal} signal
 */
export async function askVariables(route, paths, parameters, signal) {
  const answers = await Promise.all(groups(paths).map((variable) =>
    askArrays(route, {...parameters, variable}, signal)));
  const [whole, ...others] = answers;
  for (const answer of others) {
    if (String(answer.first_step) !== String(whole.first_step)) {
      throw new AnswerError('The run grew while it was read.');
    }
  }
  if (!others.length) return whole;
  for (const {name} of whole.arrays) {
    const parts = answers.map((answer) => answer[name]);
    const values = new Float32Array(parts.reduce((sum, part) => sum + part.values.length, 0));
    let offset = 0;
    for (const part of parts) {
      values.set(part.values, offset);
      offset += part.values.length;
    }
    whole[name] = {shape: [paths.length, ...whole[name].shape.slice(1)], values};
  }
  whole.variables = paths;
  return whole;
}
