/** Damped Gauss-Newton steps on the correlation, as in `adpet.imaging.registration`, which names the sources. */

import type { Registration } from "../model.generated";
import { InputError } from "./errors";
import { type Look, Looker, type Target } from "./looking";
import type { Mask } from "./masks";
import { apply, joined, product, rotationByVector, solve, upperLeft } from "./matrix";
import { eachAxis, type Matrix4, type Vector, type Volume } from "./volume";
import { percent } from "./wording";

/** Find the matrix near `start` with the best correlation: 12 unknowns if it `stretches`, or 6 if it is rigid. */
export function climb(
  scan: Volume,
  seen: Mask,
  target: Target,
  start: Matrix4,
  stretches: boolean,
  constants: Registration,
): Matrix4 {
  const [lowest, highest] = constants.damping_range;
  const centre = meanPoint(target.pointsMm);
  const looker = new Looker(scan, seen, target, centre, stretches, constants.fewest_seen);
  let matrix = start;
  let damping = constants.damping;
  let here = looker.look(matrix);
  if (!here) {
    throw new InputError(
      `${percent(looker.shareSeen(matrix))} of the brain lies in the scanner's view, ` +
        `${percent(constants.fewest_seen)} must, with uptake that is not the same everywhere: look at the scan`,
    );
  }
  for (let count = 0; count < constants.most_steps; count++) {
    const there = moved(matrix, centre, step(here, damping));
    const look = looker.look(there);
    const lengthMm = distanceMm(matrix, there, target.pointsMm);
    if (look && look.correlation > here.correlation) {
      matrix = there;
      here = look;
      damping = Math.max(damping * constants.eased, lowest);
    } else {
      damping *= constants.tightened;
    }
    if (lengthMm < constants.shortest_step_mm || damping > highest) break;
  }
  return matrix;
}

/** The damped least squares step: turns and shifts, 6, or entries of the matrix and shifts, 12. */
function step({ normal, towards }: Look, damping: number): number[] {
  const scale = normal.map((row, index) => row[index]!);
  const least = 1e-12 * Math.max(...scale);
  const damped = normal.map((row, index) =>
    row.map((value, column) => (index === column ? value + (damping * scale[index]! + least) : value)),
  );
  return solve(damped, towards);
}

function moved(matrix: Matrix4, centre: Vector, change: number[]): Matrix4 {
  const before = upperLeft(matrix);
  const turned =
    change.length === 6
      ? product(rotationByVector(change.slice(0, 3) as Vector), before)
      : before.map((row, index) => row.map((value, column) => value + change[3 * index + column]!));
  const was = apply(matrix, centre);
  const shift = eachAxis((axis) => {
    const turnedCentre = turned[axis]!.reduce((sum, value, column) => sum + value * centre[column]!, 0);
    return was[axis]! + change[change.length - 3 + axis]! - turnedCentre;
  });
  return joined(turned, shift);
}

/** The root mean square distance between where two matrices put the points. */
function distanceMm(a: Matrix4, b: Matrix4, pointsMm: Float64Array): number {
  const apart = a.map((row, index) => row.map((value, column) => value - b[index]![column]!));
  let sum = 0;
  for (const [x, y, z, shift] of apart.slice(0, 3) as [number, number, number, number][]) {
    for (let at = 0; at < pointsMm.length; at += 3) {
      const along = x * pointsMm[at]! + y * pointsMm[at + 1]! + z * pointsMm[at + 2]! + shift;
      sum += along * along;
    }
  }
  return Math.sqrt(sum / (pointsMm.length / 3));
}

function meanPoint(pointsMm: Float64Array): Vector {
  const sums: Vector = [0, 0, 0];
  pointsMm.forEach((value, at) => (sums[at % 3]! += value));
  return sums.map((sum) => sum / (pointsMm.length / 3)) as Vector;
}
