// What can be shown of a zoom at once, before the server has answered: the columns already here.

const ARRAYS = ['minimum', 'mean', 'maximum', 'nonfinite'];

/**
 * An answer of `heatmap` or `steps` as if only a range had been asked for, no finer than it is.
 * @param {object} answer
 * @param {?number} first First step wanted, or null for all.
 * @param {?number} last
 * @returns {?object} Null where the answer does not hold the whole range.
 */
export function within(answer, first, last) {
  const {first_step: begins, last_step: ends, records} = answer;
  const columns = begins.length;
  if (first === null) return answer;
  if (!columns || first < begins[0] || last > ends[columns - 1]) return null;
  const from = ends.findIndex((step) => step >= first);
  let to = columns;
  while (to > from && begins[to - 1] > last) to -= 1;
  if (to === from) return null;
  // Records are parted among columns as evenly as whole numbers allow.
  const before = (column) => Math.floor((column * records) / columns);
  const found = {
    ...answer, records: before(to) - before(from),
    first_step: begins.slice(from, to), last_step: ends.slice(from, to),
  };
  for (const name of ARRAYS) {
    if (name in answer) found[name] = cut(answer[name], columns, from, to);
  }
  return found;
}

function cut({shape, values}, columns, from, to) {
  const width = to - from;
  const rows = values.length / columns;
  const found = new Float32Array(rows * width);
  for (let row = 0; row < rows; row += 1) {
    found.set(values.subarray(row * columns + from, row * columns + to), row * width);
  }
  return {shape: [...shape.slice(0, -1), width], values: found};
}
