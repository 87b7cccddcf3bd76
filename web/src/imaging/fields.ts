/** The fields of a NIfTI header, in its own byte order, mended where nibabel mends them. */

import { eachAxis, type Vector } from "./volume";

/** Where the two formats keep what is asked for. */
export type Layout = typeof NIFTI1;

// prettier-ignore
export const NIFTI1 = {
  bytes: 348, magic: 344, dim: 40, type: 70, pixdim: 76, offset: 108, scale: 112,
  codes: 252, quaternion: 256, rows: 280, wide: false,
};
// prettier-ignore
export const NIFTI2: Layout = {
  bytes: 540, magic: 4, dim: 16, type: 12, pixdim: 104, offset: 168, scale: 176,
  codes: 344, quaternion: 352, rows: 400, wide: true,
};

export class Fields {
  readonly little: boolean;
  private readonly view: DataView;

  constructor(
    private readonly bytes: Uint8Array,
    readonly layout: Layout,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const axes = this.dim(0, true);
    this.little = axes === 0 ? this.view.getInt32(0, false) !== layout.bytes : axes >= 1 && axes <= 7;
  }

  short(at: number): number {
    return this.view.getInt16(at, this.little);
  }

  real(at: number, index = 0): number {
    return this.layout.wide
      ? this.view.getFloat64(at + 8 * index, this.little)
      : this.view.getFloat32(at + 4 * index, this.little);
  }

  dim(index: number, little = this.little): number {
    const at = this.layout.dim;
    return this.layout.wide
      ? Number(this.view.getBigInt64(at + 8 * index, little))
      : this.view.getInt16(at + 2 * index, little);
  }

  shape(): number[] {
    const axes = this.dim(0);
    const rest = [1, 2, 3, 4, 5, 6, 7].map((index) => this.dim(index));
    return axes === 0 ? [0] : rest.slice(0, axes);
  }

  /** Voxel edges: 1 for none, without their sign. */
  pixdim(): Vector {
    return eachAxis((axis) => Math.abs(this.real(this.layout.pixdim, axis + 1)) || 1);
  }

  /** Code of the sform or the qform; unknown codes are none. */
  code(which: "sform" | "qform"): number {
    const index = which === "qform" ? 0 : 1;
    const code = this.layout.wide
      ? this.view.getInt32(this.layout.codes + 4 * index, this.little)
      : this.short(this.layout.codes + 2 * index);
    return code >= 0 && code <= 5 ? code : 0;
  }

  /** Null where there is a slope and the intercept is not finite. */
  scaling(): { slope: number; intercept: number } | null {
    const slope = this.real(this.layout.scale);
    const intercept = this.real(this.layout.scale, 1);
    if (slope === 0 || !Number.isFinite(slope)) return { slope: 1, intercept: 0 };
    return Number.isFinite(intercept) ? { slope, intercept } : null;
  }

  hasLineEnds(): boolean {
    return ["13,10,26,10", "0,0,0,0"].includes(this.bytes.subarray(8, 12).join());
  }

  storedOffset(): number {
    return this.layout.wide
      ? Number(this.view.getBigInt64(this.layout.offset, this.little))
      : this.real(this.layout.offset);
  }

  isSingle(): boolean {
    return this.bytes[this.layout.magic + 1] === "+".charCodeAt(0);
  }
}
