// Runs the browser's preprocessing in Node on the scans that a job names, and writes what comes out for Python.
// `node port.mjs JOB.json`: {model, out, scans: [{name, file, standardize}], maps, pooled}.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import {
  backProject,
  coronalSlices,
  InputError,
  MODEL_IMAGES,
  type Model,
  openModel,
  pooledProbability,
  qualityChecks,
  readNifti,
  regionTable,
  standardize,
  type Volume,
  writeNifti,
} from "../../web/src/imaging/index";

interface Scan {
  readonly name: string;
  readonly file: string;
  readonly standardize: boolean;
}

interface Job {
  readonly model: string | null;
  readonly out: string;
  readonly scans: readonly Scan[];
  readonly maps: string | null;
  readonly pooled: readonly number[][];
}

const job = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Job;
const model = job.model === null ? null : modelIn(job.model);
const maps = job.maps === null ? null : floats(readFileSync(job.maps));
const cam = model && maps ? backProject(maps, model) : null;
if (model && cam) {
  const { shape, affine } = model.constants.standard;
  write("cam.f32", cam);
  write("cam.nii", writeNifti(cam, shape, affine));
}
const pooled = model ? job.pooled.map((slices) => pooledProbability(slices, model)) : [];
const scans = Object.fromEntries(job.scans.map((scan) => [scan.name, told(scan)]));
write("report.json", new TextEncoder().encode(JSON.stringify({ pooled, scans })));

function told(scan: Scan): unknown {
  const begun = performance.now();
  let volume: Volume;
  try {
    volume = readNifti(readFileSync(scan.file), path.basename(scan.file));
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { refused: error.message };
  }
  write(`${scan.name}/ras.f32`, volume.data);
  const read = { shape: volume.shape, affine: volume.affine, readSeconds: (performance.now() - begun) / 1000 };
  return scan.standardize && model ? { ...read, ...standardized(scan, volume, model) } : read;
}

function standardized(scan: Scan, volume: Volume, model: Model): unknown {
  const begun = performance.now();
  const shares: number[] = [];
  try {
    const found = standardize(volume, model, (done) => shares.push(done));
    const seconds = (performance.now() - begun) / 1000;
    write(`${scan.name}/ratio.f32`, found.volume.data);
    write(`${scan.name}/slices.u8`, coronalSlices(found.volume, model));
    return {
      matrix: found.matrix,
      similarity: found.similarity,
      regions: cam && regionTable(found.volume, cam, model),
      checks: qualityChecks(volume, found, model),
      shares,
      seconds,
    };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { unaligned: error.message };
  }
}

function modelIn(folder: string): Model {
  const constants = JSON.parse(readFileSync(path.join(folder, "model.json"), "utf8"));
  const images = MODEL_IMAGES.map((name) => [name, readFileSync(path.join(folder, name))] as const);
  return openModel(constants, Object.fromEntries(images));
}

function floats(bytes: Buffer): Float32Array {
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

function write(name: string, content: Uint8Array | Float32Array): void {
  const file = path.join(job.out, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
}
