// Which layers are shown and in what order: by text, by regular expression, by their values.

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
    // A search that remembers where it was would skip every other match.
    const compiled = new RegExp(source, flags.replace(/[gy]/g, '') || 'i');
    return {matches: (path) => compiled.test(path), error: null};
  } catch (error) {
    const reason = error.message.slice(error.message.lastIndexOf(': ') + 2);
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
