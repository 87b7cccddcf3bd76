/** Read and judge a NIfTI header, as nibabel and `adpet.imaging.nifti` do; a refusal quotes no text of the file. */

import { InputError } from "./errors";
import { Fields, type Layout, NIFTI1, NIFTI2 } from "./fields";
import { determinant, diagonal, joined, product, rotationOfQuaternion, unitAxes, voxelSizes } from "./matrix";
import { eachAxis, type Matrix4, type Shape, type Vector } from "./volume";
import { general, tuple } from "./wording";

/** Voxels of one frame: 512 x 512 x 256. A header that claims more is broken or a trap. */
export const MAX_VOXELS = 2 ** 26;
/** As many as NIfTI-1 holds; a NIfTI-2 header can claim 2^63, and each takes memory before one is read. */
const MAX_FRAMES = 2 ** 15 - 1;
const MIN_AXIS_VOXELS = 8;
/** Voxel edges of any PET or atlas image of a head; others mean a wrong unit (metres) or a broken header. */
const VOXEL_MM = [0.1, 30] as const;
/** Volume that the three axes' unit vectors enclose: 1 at right angles, 0 in one plane. */
const MIN_AXES_VOLUME = 0.01;
const FLOAT32_EPSILON = 2 ** -23;

/** Bytes of a voxel, and how to read it. */
type Real = readonly [number, (view: DataView, at: number, little: boolean) => number];

/** NIfTI's codes of real voxels. */
const REAL: Readonly<Record<number, Real>> = {
  2: [1, (view, at) => view.getUint8(at)],
  4: [2, (view, at, little) => view.getInt16(at, little)],
  8: [4, (view, at, little) => view.getInt32(at, little)],
  16: [4, (view, at, little) => view.getFloat32(at, little)],
  64: [8, (view, at, little) => view.getFloat64(at, little)],
  256: [1, (view, at) => view.getInt8(at)],
  512: [2, (view, at, little) => view.getUint16(at, little)],
  768: [4, (view, at, little) => view.getUint32(at, little)],
  1024: [8, (view, at, little) => Number(view.getBigInt64(at, little))],
  1280: [8, (view, at, little) => Number(view.getBigUint64(at, little))],
};
/** NIfTI's codes of other voxels, as NumPy calls them. */
const NOT_REAL: Readonly<Record<number, string>> = {
  32: "complex64",
  128: "[('R', 'u1'), ('G', 'u1'), ('B', 'u1')]",
  1792: "complex128",
  2304: "[('R', 'u1'), ('G', 'u1'), ('B', 'u1'), ('A', 'u1')]",
};

/** What a file's header says of it, in storage order. */
export type Header = ReturnType<typeof readHeader>;

/** Where a NIfTI-2 header says that it is CIFTI's, surfaces and not voxels. */
const CIFTI_INTENT = { at: 504, first: 3000, last: 3099 } as const;
/** Bytes that hold either header and the four that say whether extensions follow. */
export const HEADER_BYTES = NIFTI2.bytes + 4;

/** A refusal in the words that Python has for what nibabel cannot read. */
export function unreadable(name: string, reason: string): InputError {
  return new InputError(
    `${name}: cannot be read as a NIfTI image (${reason}): copy, decompress or convert the scan again`,
  );
}

export function readHeader(bytes: Uint8Array, name: string) {
  const layout = layoutOf(bytes, name);
  const fields = new Fields(bytes, layout);
  const refuse = (reason: string): never => {
    throw unreadable(name, reason);
  };
  const type = fields.short(layout.type);
  const voxel = REAL[type];
  const other = voxel ? "" : (NOT_REAL[type] ?? refuse("HeaderDataError"));
  const offset = voxelOffset(fields) ?? refuse("HeaderDataError");
  if (layout.wide && !fields.hasLineEnds()) refuse("HeaderDataError");
  const scaling = fields.scaling() ?? refuse("HeaderDataError");
  const { shape, frames } = checkedShape(fields.shape(), name);
  if (!voxel) {
    throw new InputError(`${name}: expected real voxels, received ${other}: export one number a voxel`);
  }
  return {
    littleEndian: fields.little,
    shape,
    frames,
    voxel,
    headerBytes: layout.bytes,
    isSingle: fields.isSingle(),
    offset,
    ...scaling,
    affine: bestAffine(fields, shape, name),
  };
}

function layoutOf(bytes: Uint8Array, name: string): Layout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = (at: number): string =>
    String.fromCharCode(...bytes.subarray(at, at + 4)).replace(/\0+$/, "");
  if (bytes.length >= NIFTI1.bytes && ["ni1", "n+1"].includes(magic(NIFTI1.magic))) return NIFTI1;
  const sized =
    bytes.length >= NIFTI2.bytes && [true, false].some((little) => view.getInt32(0, little) === 540);
  if (!sized) throw unreadable(name, "ImageFileError");
  if (!["ni2", "n+2"].includes(magic(NIFTI2.magic))) throw unreadable(name, "HeaderDataError");
  const intent = [true, false].map((little) => view.getInt32(CIFTI_INTENT.at, little));
  if (intent.some((code) => code >= CIFTI_INTENT.first && code <= CIFTI_INTENT.last)) {
    throw new InputError(`${name}: expected a NIfTI image, received another format: convert it to NIfTI`);
  }
  return NIFTI2;
}

/** Null where the voxels would begin within the header. */
function voxelOffset(fields: Fields): number | null {
  const offset = fields.storedOffset();
  const tooLow = offset !== 0 && fields.isSingle() && offset < fields.layout.bytes + 4;
  return tooLow || !Number.isFinite(offset) || offset < 0 ? null : Math.trunc(offset);
}

function checkedShape(stored: number[], name: string): { shape: Shape; frames: number } {
  const axes = stored.slice(0, 3);
  const [frames = 1, ...rest] = stored.slice(3);
  if (axes.length < 3 || rest.some((n) => n !== 1)) {
    throw new InputError(
      `${name}: expected 3 axes, or 4 with frames, received shape ${tuple(stored)}: give one image a scan`,
    );
  }
  if (Math.min(...axes) < MIN_AXIS_VOXELS || frames < 1) {
    throw new InputError(
      `${name}: expected at least ${MIN_AXIS_VOXELS} voxels along each axis, received shape ${tuple(stored)}:` +
        " give the whole volume, not single slices",
    );
  }
  if (frames > MAX_FRAMES) {
    throw new InputError(
      `${name}: the header claims ${BigInt(frames)} frames, more than the ${MAX_FRAMES} allowed: export the scan again`,
    );
  }
  const voxels = axes.map(BigInt).reduce((all, n) => all * n, 1n);
  if (voxels > BigInt(MAX_VOXELS)) {
    throw new InputError(
      `${name}: the header claims ${voxels} voxels a frame, more than the ${MAX_VOXELS} allowed:` +
        " export the scan again",
    );
  }
  return { shape: axes as unknown as Shape, frames };
}

/** The first usable affine of sform, qform, and the voxel sizes where there is neither. */
function bestAffine(fields: Fields, shape: Shape, name: string): Matrix4 {
  const { layout } = fields;
  const candidates: Matrix4[] = [];
  if (fields.code("sform")) {
    const row = (n: number) => [0, 1, 2, 3].map((column) => fields.real(layout.rows, 4 * n + column));
    candidates.push([...eachAxis(row), [0, 0, 0, 1]]);
  }
  if (fields.code("qform")) {
    const affine = qform(fields);
    if (affine) candidates.push(affine);
    else if (!candidates.length) throw unreadable(name, "ValueError");
  }
  if (!candidates.length) candidates.push(centred(shape, fields.pixdim()));
  const usable = candidates.find(isUsable);
  if (usable) return usable;
  throw new InputError(
    `${name}: no usable affine: expected finite axes that span space, with voxel edges of` +
      ` ${general(VOXEL_MM[0])} to ${general(VOXEL_MM[1])} mm: export the scan again with its orientation`,
  );
}

/** The affine of a quaternion, voxel edges and an offset; null where no turn has that quaternion. */
function qform(fields: Fields): Matrix4 | null {
  const at = (index: number): number => fields.real(fields.layout.quaternion, index);
  const [b, c, d] = eachAxis(at);
  const rest = 1 - (b * b + c * c + d * d);
  const nearNone = 3 * (fields.layout.wide ? Number.EPSILON : FLOAT32_EPSILON);
  if (rest < 0 && Math.abs(rest) >= nearNone) return null;
  const a = Math.abs(rest) < nearNone ? 0 : Math.sqrt(rest);
  const [x, y, z] = fields.pixdim();
  const handed = fields.real(fields.layout.pixdim) === -1 ? -1 : 1;
  const edges = diagonal([x, y, z * handed]);
  return product(joined(rotationOfQuaternion([a, b, c, d]), [at(3), at(4), at(5)]), edges);
}

/** The affine of a file that says nothing of its place: centred, its first axis from right to left. */
function centred(shape: Shape, [x, y, z]: Vector): Matrix4 {
  const edges: Vector = [-x, y, z];
  return diagonal(
    edges,
    eachAxis((axis) => (-(shape[axis]! - 1) / 2) * edges[axis]!),
  );
}

function isUsable(affine: Matrix4): boolean {
  if (!affine.flat().every(Number.isFinite)) return false;
  const zooms = voxelSizes(affine);
  if (Math.min(...zooms) < VOXEL_MM[0] || Math.max(...zooms) > VOXEL_MM[1]) return false;
  return Math.abs(determinant(unitAxes(affine))) > MIN_AXES_VOLUME;
}
