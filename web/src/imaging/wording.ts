/** Numbers in sentences, written as Python writes them, so that both sides refuse in the same words. */

/** Decimals past the last wanted: no double comes nearer to a tie without being a tie. */
const PAST_TIE = 30;

/** As Python's `:.2f` and its like. */
export function fixed(value: number, decimals: number): string {
  return tiesToEven(decimals, (n) => value.toFixed(n));
}

/** As Python's `:g`, which has six digits, or `:.3g` and its like: no trailing zeros. */
export function general(value: number, digits = 6): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const power = Number(value.toExponential(digits - 1).split("e")[1]);
  if (power >= -4 && power < digits) return trimmed(fixed(value, digits - 1 - power));
  const mantissa = tiesToEven(digits - 1, (n) => value.toExponential(n).split("e")[0]!);
  const size = String(Math.abs(power)).padStart(2, "0");
  return `${trimmed(mantissa)}e${power < 0 ? "-" : "+"}${size}`;
}

/** As Python's `:.0%`. */
export function percent(share: number): string {
  return `${fixed(100 * share, 0)}%`;
}

export function rounded(value: number, decimals: number): number {
  return Number(fixed(value, decimals));
}

/** As Python's tuple of whole numbers. */
export function tuple(values: readonly number[]): string {
  const all = values.map(BigInt).join(", ");
  return values.length === 1 ? `(${all},)` : `(${all})`;
}

/** Write a tie of the exact binary value to the even digit, as Python; `toFixed` takes the larger one. */
function tiesToEven(decimals: number, written: (decimals: number) => string): string {
  const text = written(decimals);
  const last = Number(text.at(-1));
  const isTie = /^50*$/.test(written(decimals + PAST_TIE).slice(-PAST_TIE));
  return isTie && last % 2 === 1 ? `${text.slice(0, -1)}${last - 1}` : text;
}

function trimmed(digits: string): string {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}
