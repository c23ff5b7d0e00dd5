// What a collapsed group shows of its members: one value a column, and in words what it is made of.

/** What a group's colour is, for people. */
export function meanName({scale}) {
  return scale === 'log' ? 'geometric mean' : 'mean';
}

/**
 * A group's cells, in the layout of one row of an answer of `heatmap`.
 *
 * On a logarithmic scale the mean is that of the logarithms, over members above 0, and 0 where all
 * are 0; else the plain mean. A member that is not finite makes the group's cell not finite.
 *
 * @param {object} answer Of `heatmap`.
 * @param {number[]} rows Of the members.
 * @returns {{mean: Float32Array, nonfinite: Float32Array}} `nonfinite` counts members.
 */
export function summarise(answer, rows) {
  const columns = answer.first_step.length;
  const log = answer.statistic.scale === 'log';
  const {values} = answer.mean;
  const total = new Float64Array(columns);
  const counted = new Uint32Array(columns);
  const zeros = new Uint32Array(columns);
  const nonfinite = new Float32Array(columns);
  for (const row of rows) {
    const from = row * columns;
    for (let column = 0; column < columns; column += 1) {
      const value = values[from + column];
      if (answer.nonfinite.values[from + column] > 0) nonfinite[column] += 1;
      if (!Number.isFinite(value)) continue;
      if (log && value <= 0) zeros[column] += 1;
      else {
        total[column] += log ? Math.log(value) : value;
        counted[column] += 1;
      }
    }
  }
  const mean = new Float32Array(columns);
  for (let column = 0; column < columns; column += 1) {
    const middle = total[column] / counted[column];
    if (counted[column]) mean[column] = log ? Math.exp(middle) : middle;
    else mean[column] = zeros[column] ? 0 : NaN;
  }
  return {mean, nonfinite};
}

/**
 * A group's members in one column.
 * @returns {{lowest: number, highest: number, zeros: number, nonfinite: number, recorded: number}}
 *     The first two are rows of the answer, -1 for none; the rest count members.
 */
export function extremes(answer, rows, column) {
  const columns = answer.first_step.length;
  const found = {lowest: -1, highest: -1, zeros: 0, nonfinite: 0, recorded: 0};
  const value = (row) => answer.mean.values[row * columns + column];
  for (const row of rows) {
    const bad = answer.nonfinite.values[row * columns + column] > 0;
    found.nonfinite += bad;
    found.recorded += bad || !Number.isNaN(value(row));
    if (!Number.isFinite(value(row))) continue;
    found.zeros += value(row) === 0;
    if (found.lowest < 0 || value(row) < value(found.lowest)) found.lowest = row;
    if (found.highest < 0 || value(row) > value(found.highest)) found.highest = row;
  }
  return found;
}
