/** Read a NIfTI file as one RAS+ volume; the frames of a dynamic scan are averaged. */

import { InputError } from "./errors";
import { HEADER_BYTES, type Header, MAX_VOXELS, readHeader, unreadable } from "./header";
import { toRas } from "./orientation";
import { Source, SourceError, unpackedLength } from "./source";
import { type Volume, voxelCount } from "./volume";
import { general } from "./wording";

/** As in `adpet.imaging.nifti`: more is uptake in progress. */
const MAX_RISE = 1.4;
const BLOCK_VOXELS = 2 ** 18;
const EXTENSION_ALIGNMENT = 16;
const EXTENSION_HEADER = 8;

/** Seconds of each frame that counts, by the number of frames, or null for all alike. */
type Seconds = (frames: number) => number[] | null;

/**
 * Read a file, packed if its name ends in `.gz`; throws InputError, which begins with the file's name.
 * With `seconds`, frames of a tracer that is being taken up are refused.
 */
export function readNifti(bytes: Uint8Array, name: string, seconds?: Seconds): Volume {
  try {
    return read(bytes, name, seconds);
  } catch (error) {
    if (error instanceof SourceError) throw unreadable(name, error.message);
    if (error instanceof RangeError) {
      throw new InputError(`${name}: too large for this machine's memory: average its frames first`);
    }
    throw error;
  }
}

function read(bytes: Uint8Array, name: string, seconds?: Seconds): Volume {
  if (/\.(img|hdr)(\.gz)?$/i.test(name)) {
    throw new InputError(
      `${name}: expected a scan in one file, received half a pair of header and image: convert it to NIfTI`,
    );
  }
  const packed = /\.nii\.gz$/i.test(name);
  const unknown = !packed && !/\.nii$/i.test(name);
  const noGzip = packed && !(bytes[0] === 0x1f && bytes[1] === 0x8b);
  if (!bytes.length || unknown || noGzip) throw unreadable(name, "ImageFileError");
  const header = readHeader(new Source(bytes, packed).take(HEADER_BYTES), name);
  checkExtensions(new Source(bytes, packed), header, name);
  checkLength(bytes, packed, header, name);
  const source = new Source(bytes, packed);
  source.skip(header.offset);
  const { data, means } = averaged(source, header, seconds?.(header.frames) ?? null);
  const isRising = means.some((mean, n) => mean > MAX_RISE * Math.min(...means.slice(0, n + 1)));
  if (seconds && isRising) {
    throw new InputError(
      `${name}: uptake grows more than ${MAX_RISE}-fold from frame to frame, as just after injection:` +
        " add FrameTimesStart and FrameDuration to its sidecar, or keep late frames alone",
    );
  }
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
  const least = header.headerBytes + 4;
  if (header.isSingle && header.offset < least) {
    throw new InputError(
      `${name}: the header says that the voxels begin at byte ${header.offset} (vox_offset), within the header:` +
        ` set it to ${least}, or convert the scan again`,
    );
  }
  const claimed = voxelCount(header.shape) * header.voxel[0] * header.frames;
  const present = Math.max(unpackedLength(bytes, packed, header.offset + claimed) - header.offset, 0);
  if (present < claimed) {
    throw new InputError(
      `${name}: truncated: the header claims ${claimed} bytes of voxels, ${present} are there:` +
        " copy or export the scan again",
    );
  }
}

/** The mean of the frames by their seconds, in storage order, and the mean of each frame that counts; voxels
 * are scaled as nibabel does, in double precision. */
function averaged(source: Source, header: Header, seconds: number[] | null) {
  const { frames, littleEndian, slope, intercept } = header;
  const [bytes, read] = header.voxel;
  const voxels = voxelCount(header.shape);
  const total = frames > 1 ? new Float64Array(voxels) : new Float32Array(voxels);
  const means: number[] = [];
  const all = seconds?.reduce((sum, one) => sum + one, 0) ?? frames;
  for (let frame = 0; frame < frames; frame++) {
    const weight = (seconds?.[frame] ?? 1) / all;
    if (weight === 0) {
      source.skip(voxels * bytes);
      continue;
    }
    let sum = 0;
    for (let first = 0; first < voxels; first += BLOCK_VOXELS) {
      const count = Math.min(BLOCK_VOXELS, voxels - first);
      const stored = source.take(count * bytes);
      const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
      for (let index = 0; index < count; index++) {
        const scaled = Math.fround(read(view, index * bytes, littleEndian) * slope + intercept);
        if (!Number.isFinite(scaled)) continue;
        total[first + index]! += weight * scaled;
        sum += Math.abs(scaled);
      }
    }
    means.push(sum / voxels);
  }
  source.skip(Infinity);
  return { data: total instanceof Float32Array ? total : Float32Array.from(total), means };
}
