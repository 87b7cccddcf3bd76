/** One image, as all modules here pass it on. */

export type Shape = readonly [number, number, number];
export type Vector = [number, number, number];
/** (4, 4): rows of columns; points are columns on its right. */
export type Matrix4 = number[][];

export interface Volume {
  /** Voxels in the order of their indices (i, j, k), the last one fastest. */
  readonly data: Float32Array;
  readonly shape: Shape;
  /** Voxel indices -> RAS+ mm. */
  readonly affine: Matrix4;
}

export function voxelCount(shape: Shape): number {
  return shape[0] * shape[1] * shape[2];
}

export function eachAxis<Value>(value: (axis: number) => Value): [Value, Value, Value] {
  return [value(0), value(1), value(2)];
}

/** Largest absolute value, never 0. */
export function largest(data: Float32Array): number {
  return data.reduce((max, value) => Math.max(max, Math.abs(value)), Number.MIN_VALUE);
}
