/** Write a volume as NIfTI-1: the same volume gives the same bytes. */

import { closestRotation, determinant, symmetricEigen, unitAxes, voxelSizes } from "./matrix";
import { eachVoxel, type Matrix4, type Vector, type Volume } from "./volume";

const HEADER_BYTES = 348;
/** The header and the four bytes that say "no extension". */
const DATA_OFFSET = 352;
const FLOAT32_CODE = 16;
const MILLIMETRES = 2;
const MNI = 4;
/** How far a qform may be from the affine before it is left out. */
const QFORM_TOLERANCE = 1e-3;
const RELATIVE_TOLERANCE = 1e-5;

/** Write voxels as little-endian float32 in MNI space; the qform is left out where the affine has shears. */
export function writeNifti({ data, shape, affine }: Volume): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(DATA_OFFSET + 4 * data.length);
  const view = new DataView(bytes.buffer);
  const real = (at: number, value: number): void => view.setFloat32(at, value, true);
  const short = (at: number, value: number): void => view.setInt16(at, value, true);
  view.setInt32(0, HEADER_BYTES, true);
  [3, ...shape, 1, 1, 1, 1].forEach((n, index) => short(40 + 2 * index, n));
  short(70, FLOAT32_CODE);
  short(72, 32);
  const { handed, zooms, quaternion, isExact } = qformOf(affine);
  [handed, ...zooms, 1, 1, 1, 1].forEach((edge, index) => real(76 + 4 * index, edge));
  real(108, DATA_OFFSET);
  real(112, 1);
  view.setUint8(123, MILLIMETRES);
  short(252, isExact ? MNI : 0);
  short(254, MNI);
  quaternion.forEach((value, index) => real(256 + 4 * index, value));
  for (let row = 0; row < 3; row++) {
    real(268 + 4 * row, affine[row]![3]!);
    affine[row]!.forEach((value, column) => real(280 + 16 * row + 4 * column, value));
  }
  bytes.set(new TextEncoder().encode("n+1"), 344);
  const [ni, nj] = shape;
  eachVoxel(shape, (i, j, k, at) => real(DATA_OFFSET + 4 * ((k * nj + j) * ni + i), data[at]!));
  return bytes;
}

/** Voxel edges and the turn of an affine, as NIfTI's qform has them, and whether nothing else is in it. */
function qformOf(affine: Matrix4) {
  const zooms = voxelSizes(affine);
  const axes = unitAxes(affine);
  const handed = determinant(axes) > 0 ? 1 : -1;
  const edges = [zooms[0], zooms[1], handed * zooms[2]];
  const turn = closestRotation(axes.map(([x, y, z]) => [x!, y!, handed * z!]));
  const isExact = turn.every((row, axis) =>
    row.every((value, column) => isClose(value * edges[column]!, affine[axis]![column]!)),
  );
  const [[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]] = turn as [Vector, Vector, Vector];
  // The quaternion is the eigenvector of the largest eigenvalue (Bar-Itzhack 2000).
  const { values, vectors } = symmetricEigen([
    [xx - yy - zz, yx + xy, zx + xz, zy - yz],
    [yx + xy, yy - xx - zz, zy + yz, xz - zx],
    [zx + xz, zy + yz, zz - xx - yy, yx - xy],
    [zy - yz, xz - zx, yx - xy, xx + yy + zz],
  ]);
  const [x, y, z, w] = vectors[values.indexOf(Math.max(...values))] as [number, number, number, number];
  const sign = w < 0 ? -1 : 1;
  return { handed, zooms, quaternion: [sign * x, sign * y, sign * z], isExact };
}

function isClose(value: number, wanted: number): boolean {
  return Math.abs(value - wanted) <= QFORM_TOLERANCE + RELATIVE_TOLERANCE * Math.abs(wanted);
}
