// Runs the browser's preprocessing in Node on the scans that a job names, and writes what comes out for Python.
// The job is JSON: {model, out, scans: [{name, file, standardize}], maps, pooled, written: [{name, shape, affine}],
// judged: [{values, limits}], figures, numbers, meanings}.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import {
  backProject,
  coronalSlices,
  InputError,
  MODEL_IMAGES,
  openModel,
  pooledProbability,
  qualityChecks,
  readNifti,
  refusal,
  regionTable,
  standardize,
  writeNifti,
} from "../../web/src/imaging/index.ts";
import { judged } from "../../web/src/imaging/quality.ts";
import { figure } from "../../web/src/page/dom.ts";
import { fixed, general, percent, rounded } from "../../web/src/imaging/wording.ts";
import { meaningOf } from "../../web/src/worker/answering.ts";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const model = job.model && modelIn(job.model);
const cam = job.maps && backProject(floats(readFileSync(job.maps)), model);
if (cam) {
  const { shape, affine } = model.constants.standard;
  write("cam.f32", cam);
  write("cam.nii", writeNifti(cam, shape, affine));
}
for (const { name, shape, affine } of job.written ?? []) {
  const data = Float32Array.from({ length: shape[0] * shape[1] * shape[2] }, (_, index) => index);
  write(name, writeNifti(data, shape, affine));
}
const pooled = (job.pooled ?? []).map(({ slices, ...aggregation }) =>
  pooledProbability(slices, { ...model, constants: { ...model.constants, aggregation } }),
);
// JSON has no word for what is not finite, so values come and go as texts.
const judgements = (job.judged ?? []).map(({ values, limits }) => {
  const numbers = Object.entries(values).map(([name, text]) => [name, Number(text)]);
  return judged(Object.fromEntries(numbers), limits).map((row) => ({ ...row, value: String(row.value) }));
});
const figures = (job.figures ?? []).map(figure);
const words = (job.numbers ?? []).map((number) => [
  ...[0, 1, 2, 3, 4].map((decimals) => fixed(number, decimals)),
  ...[1, 2, 3, 4, 6].map((digits) => general(number, digits)),
  percent(number),
]);
const roundings = (job.numbers ?? []).map((number) => [0, 1, 2, 4].map((decimals) => rounded(number, decimals)));
const meanings = (job.meanings ?? []).map(({ probability, document }) => meaningOf(probability, document));
const scans = Object.fromEntries(job.scans.map((scan) => [scan.name, told(scan)]));
write("report.json", JSON.stringify({ pooled, judged: judgements, figures, words, roundings, meanings, scans }));

function told(scan) {
  let begun = process.cpuUsage();
  const seconds = () => process.cpuUsage(begun).user / 1e6;
  try {
    const volume = readNifti(readFileSync(scan.file), path.basename(scan.file));
    const read = { shape: volume.shape, affine: volume.affine, readSeconds: seconds() };
    write(`${scan.name}/ras.f32`, volume.data);
    if (!scan.standardize) return read;
    begun = process.cpuUsage();
    const shares = [];
    const found = standardize(volume, model, (done) => shares.push(done));
    return { ...read, seconds: seconds(), shares, ...standardized(scan, volume, found) };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { refused: error.message };
  }
}

function standardized(scan, volume, found) {
  write(`${scan.name}/ratio.f32`, found.volume.data);
  write(`${scan.name}/slices.u8`, coronalSlices(found.volume, model));

  const checks = qualityChecks(volume, found, model);
  return {
    matrix: found.matrix,
    similarity: found.similarity,
    regions: cam && regionTable(found.volume, cam, model),
    checks,
    refusal: refusal(checks),
  };
}

function modelIn(folder) {
  const constants = JSON.parse(readFileSync(path.join(folder, "model.json"), "utf8"));
  const images = MODEL_IMAGES.map((name) => [name, readFileSync(path.join(folder, name))]);
  return openModel(constants, Object.fromEntries(images));
}

function floats(bytes) {
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

function write(name, content) {
  const file = path.join(job.out, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
}
