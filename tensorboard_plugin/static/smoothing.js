// Exponential smoothing as TensorBoard's scalars have it.

/** The strongest smoothing. */
export const MOST_SMOOTHING = 0.99;

/** A smoothing from an address, which may hold any number. */
export function knownSmoothing(value) {
  return Number.isFinite(value) ? Math.max(0, Math.min(MOST_SMOOTHING, value)) : 0;
}

/**
 * The exponential moving average, divided by the weights' sum `1 - weight^n` so that it does not
 * begin at 0 (Adam's bias correction: Kingma and Ba 2015, section 3).
 *
 * @param {Float32Array|number[]} values What is not finite stays, and counts for nothing.
 * @param {number} weight From 0, which changes nothing, to below 1.
 * @returns {number[]}
 */
export function smooth(values, weight) {
  let average = 0;
  let remaining = 1;
  return Array.from(values, (value) => {
    if (!Number.isFinite(value)) return value;
    average = weight * average + (1 - weight) * value;
    remaining *= weight;
    return average / (1 - remaining);
  });
}
