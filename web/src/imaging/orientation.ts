/** Turn voxels to RAS+ order by flipping and swapping axes; nothing is interpolated. */

import { closestRotation, joined, product, unitAxes } from "./matrix";
import { eachAxis, eachVoxel, type Matrix4, type Shape, type Vector, type Volume } from "./volume";

/** Find the world axis of each voxel axis, and its direction along that, as nibabel's `io_orientation`. */
function orientationOf(affine: Matrix4): { axes: Vector; signs: Vector } {
  const turn = closestRotation(unitAxes(affine));
  const closeness = eachAxis((axis) => Math.max(...turn.map((row) => row[axis]! ** 2)));
  const order = [0, 1, 2].sort((a, b) => closeness[b]! - closeness[a]! || a - b);
  const axes: Vector = [0, 0, 0];
  const signs: Vector = [1, 1, 1];
  for (const axis of order) {
    const sizes = turn.map((row) => Math.abs(row[axis]!));
    const world = sizes.indexOf(Math.max(...sizes));
    axes[axis] = world;
    signs[axis] = turn[world]![axis]! < 0 ? -1 : 1;
    turn[world] = [0, 0, 0];
  }
  return { axes, signs };
}

/** Bring voxels in a file's order (the first index running fastest) to RAS+ order. */
export function toRas(stored: Float32Array, shape: Shape, affine: Matrix4): Volume {
  const { axes, signs } = orientationOf(affine);
  const strides = [1, shape[0], shape[0] * shape[1]];
  const turnedShape: Vector = [0, 0, 0];
  const step: Vector = [0, 0, 0];
  let first = 0;
  const turning = eachAxis(() => [0, 0, 0]);
  const shift: Vector = [0, 0, 0];
  for (let axis = 0; axis < 3; axis++) {
    const [world, sign, n] = [axes[axis]!, signs[axis]!, shape[axis]!];
    turnedShape[world] = n;
    step[world] = sign * strides[axis]!;
    if (sign < 0) first += (n - 1) * strides[axis]!;
    turning[axis]![world] = sign;
    shift[axis] = sign < 0 ? n - 1 : 0;
  }
  const data = new Float32Array(stored.length);
  eachVoxel(turnedShape, (i, j, k, at) => {
    data[at] = stored[first + i * step[0] + j * step[1] + k * step[2]]!;
  });
  return { data, shape: turnedShape, affine: product(affine, joined(turning, shift)) };
}
