// Numbers as people read them.

const SUPERSCRIPT = '⁰¹²³⁴⁵⁶⁷⁸⁹';

// To make one takes longer than to use it a thousand times.
const WHOLE = new Intl.NumberFormat('en');
const SIGNIFICANT = new Map();

function significant(digits) {
  if (!SIGNIFICANT.has(digits)) {
    SIGNIFICANT.set(
      digits, new Intl.NumberFormat('en', {maximumSignificantDigits: digits}));
  }
  return SIGNIFICANT.get(digits);
}

/** 10 to a whole power: `power(-3)` is "10⁻³". */
export function power(exponent) {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPT[digit]).join('');
  return `10${exponent < 0 ? '⁻' : ''}${digits}`;
}

/** A value with the given significant digits, "0.00123" or "1.23e-7", and "NaN", "∞", "−∞". */
export function number(value, digits = 4) {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) {
    return significant(digits).format(Number(value.toPrecision(digits)));
  }
  return value.toExponential(digits - 1).replace(/\.?0+e/, 'e').replace('e+', 'e');
}

/** All the digits that a float32 has. */
export function exact(value) {
  return number(value, 7);
}

/** A step or another whole number, with separators. */
export function whole(value) {
  return WHOLE.format(Math.round(value));
}

/** "1 record", "2 records". */
export function count(amount, noun) {
  return `${whole(amount)} ${noun}${amount === 1 ? '' : 's'}`;
}

/** Bytes in binary units. */
export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${number(value, 3)}\u00a0${units[unit]}`;
}

/** Round numbers between two ends, about `wanted` of them, 1, 2 or 5 times a power of ten apart. */
export function ticks(low, high, wanted, integer = false) {
  const rough = (high - low) / Math.max(1, wanted);
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  // So close that a step would be lost in rounding, and no tick ever be the last.
  if (rough < 1e-12 * Math.max(Math.abs(low), Math.abs(high))) return [low];
  const scale = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * scale).find((size) => size >= rough * 0.75);
  if (integer) step = Math.max(1, Math.round(step));
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}
