/** One image, as everything here hands it on. */

export type Shape = readonly [number, number, number];
export type Vector = [number, number, number];
/** (4, 4): rows of columns; points are columns on its right. */
export type Matrix4 = number[][];

/**
 * `data` holds the voxels in the order of their indices (i, j, k), the last one running fastest.
 * `affine` maps voxel indices to RAS+ mm.
 */
export interface Volume {
  readonly data: Float32Array;
  readonly shape: Shape;
  readonly affine: Matrix4;
}

export function voxelCount(shape: Shape): number {
  return shape[0] * shape[1] * shape[2];
}
