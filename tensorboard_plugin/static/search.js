// Which layers are shown and in what order: by text, by regular expression, by their values.

import {compile} from './expression.js';

/**
 * A filter of paths from what a person typed: `/expression/` or `/expression/flags` is a regular
 * expression, in either case of letters unless flags say so; anything else is text to be found.
 * @returns {{matches: function(string): boolean, error: ?string}} With an error nothing matches.
 */
export function pathFilter(text) {
  const expression = /^\/(.+)\/([a-z]*)$/s.exec(text);
  if (!expression) {
    const wanted = text.toLowerCase();
    return {matches: (path) => path.toLowerCase().includes(wanted), error: null};
  }
  const [, source, flags] = expression;
  try {
    // Where a search begins means nothing here.
    return {matches: compile(source, flags.replace(/[dgy]/g, '') || 'i'), error: null};
  } catch (error) {
    // The browser's message repeats the expression: "Invalid regular expression: /(/: reason".
    const reason = error.message.replace(/^Invalid .*: /s, '');
    return {matches: () => false, error: `Not a regular expression: ${reason}`};
  }
}

/** The last finite value of a row, or NaN. */
function lastFinite(values, row, columns) {
  for (let at = (row + 1) * columns - 1; at >= row * columns; at -= 1) {
    if (Number.isFinite(values[at])) return values[at];
  }
  return NaN;
}

/**
 * Rows by their last finite value in the range shown; those without one come last.
 * @param {number[]} rows
 * @param {string} sort "model", "highest" or "lowest".
 * @param {Float32Array} values `[all rows, columns]`.
 * @param {number} columns
 */
export function inOrder(rows, sort, values, columns) {
  if (sort === 'model') return rows;
  const sign = sort === 'highest' ? -1 : 1;
  const last = new Map(rows.map((row) => [row, lastFinite(values, row, columns)]));
  return [...rows].sort((one, other) => {
    const [a, b] = [last.get(one), last.get(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
}
