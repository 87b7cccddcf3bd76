/** Numbers in sentences, written as Python writes them, so that both sides refuse in the same words. */

import { roundHalfEven } from "./matrix";

/** As Python's `:g`, which has six digits, or `:.3g` and its like: no trailing zeros. */
export function general(value: number, digits = 6): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e") as [string, string];
  const power = Number(exponent);
  if (power >= -4 && power < digits) return trimmed(value.toFixed(digits - 1 - power));
  const size = String(Math.abs(power)).padStart(2, "0");
  return `${trimmed(mantissa)}e${power < 0 ? "-" : "+"}${size}`;
}

/** As Python's `:.0%`. */
export function percent(share: number): string {
  return `${roundHalfEven(100 * share)}%`;
}

/** Round to so many decimals. */
export function rounded(value: number, decimals: number): number {
  return Number.isFinite(value) ? Number(value.toFixed(decimals)) : value;
}

/** As Python's tuple of whole numbers. */
export function tuple(values: readonly number[]): string {
  const all = values.map(BigInt).join(", ");
  return values.length === 1 ? `(${all},)` : `(${all})`;
}

function trimmed(digits: string): string {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}
