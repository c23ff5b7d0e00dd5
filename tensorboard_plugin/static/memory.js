// What weights and slots take in memory, from the route `variables`.

// "bfloat16" is 16 bits, "float8_e4m3fn" 8.
const BITS = /^[a-z]+(\d+)/;

/** Bytes of one element of a dtype, NaN for one that nobody knows. */
export function elementBytes(dtype) {
  if (dtype === 'bool') return 1;
  const found = BITS.exec(dtype);
  return found ? Number(found[1]) / 8 : NaN;
}

/**
 * @typedef {{path: string, parameters: number, weights: number, slots: number[], total: number,
 *     variables: number}} Size In bytes but for the numbers of parameters and variables; `slots`
 *     in the order of the names.
 */

/**
 * @param {object[]} variables As the route `variables` answers.
 * @returns {{names: string[], sizes: Size[], unknown: number}} `names` of slots, `unknown` how many
 *     variables have a size that cannot be told and counts as 0.
 */
export function sizesOf(variables) {
  const names = [...new Set(variables.flatMap(({slots}) => Object.keys(slots)))];
  let unknown = 0;
  const sizes = variables.map(({path, parameters, dtype, slots}) => {
    let known = true;
    const counted = (value) => {
      if (Number.isFinite(value) && value >= 0) return value;
      known = false;
      return 0;
    };
    const weights = counted(parameters * elementBytes(dtype));
    const ofSlots = names.map((name) =>
      (name in slots ? counted(slots[name] ? slots[name].bytes : NaN) : 0));
    if (!known) unknown += 1;
    return {
      path, parameters, weights, slots: ofSlots, variables: 1,
      total: ofSlots.reduce((sum, value) => sum + value, weights),
    };
  });
  return {names, sizes, unknown};
}

/** The sum of several sizes. */
export function sumOf(sizes, slots) {
  const sum = {
    path: '', parameters: 0, weights: 0, slots: new Array(slots).fill(0), total: 0, variables: 0,
  };
  for (const size of sizes) {
    for (const name of ['parameters', 'weights', 'total', 'variables']) sum[name] += size[name];
    size.slots.forEach((value, index) => {
      sum.slots[index] += value;
    });
  }
  return sum;
}
