/** One image, as all modules here pass it on. */

export type Shape = readonly [number, number, number];
export type Vector = [number, number, number];
/** (4, 4): rows of columns; points are columns on its right. */
export type Matrix4 = number[][];

export interface Grid {
  readonly shape: Shape;
  /** Voxel indices -> RAS+ mm. */
  readonly affine: Matrix4;
}

export interface Volume extends Grid {
  /** Voxels in the order of their indices (i, j, k), the last one fastest. */
  readonly data: Float32Array;
}

export function voxelCount(shape: Shape): number {
  return shape[0] * shape[1] * shape[2];
}

/** Visit all voxels in the order of their indices; `at` counts them. */
export function eachVoxel(
  [ni, nj, nk]: Shape,
  visit: (i: number, j: number, k: number, at: number) => void,
): void {
  let at = 0;
  for (let i = 0; i < ni; i++) {
    for (let j = 0; j < nj; j++) {
      for (let k = 0; k < nk; k++) visit(i, j, k, at++);
    }
  }
}

export function eachAxis<Value>(value: (axis: number) => Value): [Value, Value, Value] {
  return [value(0), value(1), value(2)];
}

/** Largest absolute value, never 0. */
export function largest(data: Float32Array): number {
  return data.reduce((max, value) => Math.max(max, Math.abs(value)), Number.MIN_VALUE);
}
