/** The bytes of a file, plain or packed, unpacked as far as they are asked for. */

import { Gunzip } from "fflate";

const PACKED_CHUNK = 65536;
const TRAILER = 8;

/** Why bytes cannot be had, in the words that `InputError` puts in brackets. */
export class SourceError extends Error {}

/** How long a file is unpacked. A gzip file's last four bytes say it, unless it is cut or packed in pieces. */
export function unpackedLength(bytes: Uint8Array, packed: boolean, expected: number): number {
  if (!packed) return bytes.length;
  const claimed = bytes.subarray(-4).reduceRight((size, byte) => size * 256 + byte, 0);
  return claimed === expected % 2 ** 32 ? expected : new Source(bytes, true).skip(Infinity);
}

/** Unpacks a gzip file of one piece or several, and checks length and sum of each, which fflate does not. */
export class Source {
  private readonly gunzip: Gunzip;
  private readonly ready: Uint8Array[] = [];
  private pushed = 0;
  private length = 0;
  private crc = 0;

  constructor(
    private readonly bytes: Uint8Array,
    packed: boolean,
  ) {
    this.gunzip = new Gunzip((chunk) => {
      this.length += chunk.length;
      this.crc = crc32(chunk, this.crc);
      if (chunk.length) this.ready.push(chunk);
    });
    this.gunzip.onmember = (start) => this.check(start);
    if (packed) return;
    this.ready.push(bytes);
    this.pushed = bytes.length;
  }

  /** The next bytes; fewer than `count` where the file ends. */
  take(count: number): Uint8Array {
    const parts: Uint8Array[] = [];
    const taken = new Uint8Array(this.pass(count, (part) => parts.push(part)));
    parts.reduce((at, part) => (taken.set(part, at), at + part.length), 0);
    return taken;
  }

  skip(count: number): number {
    return this.pass(count, () => undefined);
  }

  private pass(count: number, receive: (part: Uint8Array) => void): number {
    let found = 0;
    while (found < count && (this.ready.length || this.unpackMore())) {
      const chunk = this.ready.shift();
      if (!chunk) continue;
      const part = chunk.subarray(0, count - found);
      if (part.length < chunk.length) this.ready.unshift(chunk.subarray(part.length));
      receive(part);
      found += part.length;
    }
    return found;
  }

  private unpackMore(): boolean {
    if (this.pushed >= this.bytes.length) return false;
    const end = Math.min(this.pushed + PACKED_CHUNK, this.bytes.length);
    const last = end === this.bytes.length;
    try {
      this.gunzip.push(this.bytes.subarray(this.pushed, end), last);
    } catch (error) {
      if (error instanceof SourceError) throw error;
      throw new SourceError(describe(error));
    }
    this.pushed = end;
    if (last) this.check(this.bytes.length);
    return true;
  }

  /** Compare a piece with what its last eight bytes say of it (RFC 1952). */
  private check(end: number): void {
    if (end < TRAILER) throw new SourceError(describe(undefined));
    const trailer = new DataView(this.bytes.buffer, this.bytes.byteOffset + end - TRAILER, TRAILER);
    if (trailer.getUint32(0, true) !== this.crc || trailer.getUint32(4, true) !== this.length % 2 ** 32) {
      throw new SourceError("no gzip file, or its checksum is wrong");
    }
    this.crc = this.length = 0;
  }
}

function describe(error: unknown): string {
  const code = (error as { code?: number } | undefined)?.code;
  if (code === 0) return "Compressed file ended before the end-of-stream marker was reached";
  return code === 6 ? "no gzip file, or its checksum is wrong" : "the compressed data is damaged";
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(bytes: Uint8Array, before: number): number {
  let crc = ~before;
  for (let index = 0; index < bytes.length; index++) {
    crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ bytes[index]!) & 255]!;
  }
  return ~crc >>> 0;
}
