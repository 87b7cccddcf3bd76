/** Read a NIfTI file as one RAS+ volume; the frames of a dynamic scan are averaged. */

import { InputError } from "./errors";
import { HEADER_BYTES, type Header, MAX_VOXELS, readHeader, unreadable, type VoxelType } from "./header";
import { toRas } from "./orientation";
import { Source, SourceError, unpackedLength } from "./source";
import { type Volume, voxelCount } from "./volume";
import { general } from "./wording";

/** So many voxels are unpacked at a time. */
const BLOCK_VOXELS = 2 ** 18;
const EXTENSION_ALIGNMENT = 16;
const EXTENSION_HEADER = 8;

/**
 * Read a scan.
 *
 * @param bytes - The whole file, packed if its name ends in `.gz`.
 * @param name - The file's name, which every refusal begins with.
 * @returns Voxels in the file's unit, those that are not finite set to 0; frames are averaged as they are unpacked.
 * @throws InputError for what is no NIfTI-1 or NIfTI-2 image of 3 or 4 axes in one file, is truncated, damaged or
 * constant, has no usable affine, or claims more voxels a frame than `maxVoxels`.
 */
export function readNifti(bytes: Uint8Array, name: string, maxVoxels = MAX_VOXELS): Volume {
  try {
    return read(bytes, name, maxVoxels);
  } catch (error) {
    if (error instanceof SourceError) throw unreadable(name, error.message);
    if (error instanceof RangeError) {
      throw new InputError(`${name}: too large for this machine's memory: average its frames first`);
    }
    throw error;
  }
}

function read(bytes: Uint8Array, name: string, maxVoxels: number): Volume {
  if (/\.(img|hdr)(\.gz)?$/i.test(name)) {
    throw new InputError(
      `${name}: expected a scan in one file, received half a pair of header and image: convert it to NIfTI`,
    );
  }
  const packed = /\.nii\.gz$/i.test(name);
  const unknown = !packed && !/\.nii$/i.test(name);
  const noGzip = packed && !(bytes[0] === 0x1f && bytes[1] === 0x8b);
  if (!bytes.length || unknown || noGzip) throw unreadable(name, "ImageFileError");
  const header = readHeader(new Source(bytes, packed).take(HEADER_BYTES), name, maxVoxels);
  checkExtensions(new Source(bytes, packed), header, name);
  checkLength(bytes, packed, header, name);
  const source = new Source(bytes, packed);
  source.skip(header.offset);
  const data = averaged(source, header);
  const value = data[0]!;
  if (data.every((voxel) => voxel === value)) {
    throw new InputError(
      `${name}: the image is constant (every voxel is ${general(value)}): export the scan again`,
    );
  }
  return toRas(data, header.shape, header.affine);
}

/** Refuse extensions that are not whole, as nibabel does; what stands in them is passed over. */
function checkExtensions(source: Source, header: Header, name: string): void {
  source.skip(header.headerBytes);
  const status = source.take(4);
  if (status.length < 4 || status[0] === 0) return;
  let left = header.offset - header.headerBytes - 4;
  while (left >= EXTENSION_ALIGNMENT) {
    const begin = source.take(EXTENSION_HEADER);
    if (begin.length < EXTENSION_HEADER) throw unreadable(name, "HeaderDataError");
    const size = new DataView(begin.buffer, begin.byteOffset).getInt32(0, header.littleEndian);
    const content = size - EXTENSION_HEADER;
    if (content < 0 || source.skip(content) < content) throw unreadable(name, "HeaderDataError");
    left -= size;
  }
}

/** Refuse a file that is shorter than its header claims, before memory is taken for its voxels. */
function checkLength(bytes: Uint8Array, packed: boolean, header: Header, name: string): void {
  const claimed = voxelCount(header.shape) * header.bytesPerVoxel * header.frames;
  const present = Math.max(unpackedLength(bytes, packed, header.offset + claimed) - header.offset, 0);
  if (present < claimed) {
    throw new InputError(
      `${name}: truncated: the header claims ${claimed} bytes of voxels, ${present} are there:` +
        " copy or export the scan again",
    );
  }
}

/** The mean of all frames, in storage order. */
function averaged(source: Source, header: Header): Float32Array {
  const voxels = voxelCount(header.shape);
  const total = header.frames > 1 ? new Float64Array(voxels) : new Float32Array(voxels);
  const weight = 1 / header.frames;
  const convert = CONVERTERS[header.type];
  const block = new Float32Array(Math.min(BLOCK_VOXELS, voxels));
  for (let number = 0; number < header.frames; number++) {
    for (let first = 0; first < voxels; first += BLOCK_VOXELS) {
      const count = Math.min(BLOCK_VOXELS, voxels - first);
      const stored = source.take(count * header.bytesPerVoxel);
      convert(
        new DataView(stored.buffer, stored.byteOffset, stored.byteLength),
        header,
        block.subarray(0, count),
      );
      for (let index = 0; index < count; index++) total[first + index]! += weight * block[index]!;
    }
  }
  source.skip(Infinity);
  return total instanceof Float32Array ? total : Float32Array.from(total);
}

type Converter = (view: DataView, header: Header, into: Float32Array) => void;

/** Scale one frame as nibabel does, in double precision; what is not finite becomes 0. */
function converter(value: (view: DataView, at: number, little: boolean) => number): Converter {
  return (view, { littleEndian, slope, intercept, bytesPerVoxel }, into) => {
    for (let index = 0, at = 0; index < into.length; index++, at += bytesPerVoxel) {
      const scaled = Math.fround(value(view, at, littleEndian) * slope + intercept);
      into[index] = Number.isFinite(scaled) ? scaled : 0;
    }
  };
}

const CONVERTERS: Readonly<Record<VoxelType, Converter>> = {
  uint8: converter((view, at) => view.getUint8(at)),
  int8: converter((view, at) => view.getInt8(at)),
  int16: converter((view, at, little) => view.getInt16(at, little)),
  uint16: converter((view, at, little) => view.getUint16(at, little)),
  int32: converter((view, at, little) => view.getInt32(at, little)),
  uint32: converter((view, at, little) => view.getUint32(at, little)),
  int64: converter((view, at, little) => Number(view.getBigInt64(at, little))),
  uint64: converter((view, at, little) => Number(view.getBigUint64(at, little))),
  float32: converter((view, at, little) => view.getFloat32(at, little)),
  float64: converter((view, at, little) => view.getFloat64(at, little)),
};
