// Runs the browser's preprocessing in Node on the scans of a job, and writes the results for Python.
// The job is JSON: {model, out, scans: [{name, file, normalize, sidecar}], maps, pooled, interpreted,
// written: [{name, shape, affine}]}.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import * as imaging from "../../web/src/imaging/index.ts";

const AGE = 95;
const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { pooled = [], interpreted = [], written = [] } = job;
const model = job.model && modelIn(job.model);
const cam = job.maps && imaging.backProject(new Float32Array(new Uint8Array(readFileSync(job.maps)).buffer), model);
if (cam) {
  const { shape, affine } = model.constants.standard;
  write("cam.f32", cam);
  write("cam.nii", imaging.writeNifti({ data: cam, shape, affine }));
}
for (const { name, shape, affine } of written) {
  const data = Float32Array.from({ length: shape[0] * shape[1] * shape[2] }, (_, index) => index);
  write(name, imaging.writeNifti({ data, shape, affine }));
}
const report = {
  pooled: pooled.map(({ slices, aggregation }) =>
    imaging.pooledProbability(slices, { ...model, constants: { ...model.constants, aggregation } }),
  ),
  contributions: pooled.map(({ slices, aggregation }) =>
    imaging.contributions(slices, { ...model, constants: { ...model.constants, aggregation } }),
  ),
  interpreted: interpreted.map(([probability, reference]) => imaging.interpret(probability, reference)),
  scans: Object.fromEntries(job.scans.map((scan) => [scan.name, described(scan)])),
};
write("report.json", JSON.stringify(report));

function described({ name, file, normalize, sidecar }) {
  try {
    const isPath = typeof sidecar === "string";
    const content = isPath ? imaging.readSidecar("s.json", readFileSync(sidecar)).content : sidecar;
    const [base, about] = [path.basename(file), { name: "s.json", content }];
    if (sidecar) imaging.requireFdg(base, about);
    const seconds = sidecar && ((frames) => imaging.usedSeconds(base, about, frames, [30, 60]));
    const volume = imaging.readNifti(readFileSync(file), base, seconds);
    const { shape, affine } = volume;
    write(`${name}/ras.f32`, volume.data);
    if (!normalize) return { shape, affine };
    const shares = [];
    const found = imaging.normalize(volume, model, (done) => shares.push(done));
    write(`${name}/suvr.f32`, found.volume.data);
    write(`${name}/z.f32`, imaging.zMap(found.volume, model, AGE));
    write(`${name}/slices.u8`, imaging.networkSlices(found.volume, model));
    const checks = imaging.qualityChecks(volume, found, model);
    const { matrix, similarity } = found;
    const turn = imaging.turnThatFits(volume, similarity, model, () => {});
    const regions = cam && imaging.regionTable(found.volume, cam, model, AGE);
    return { shape, affine, shares, matrix, similarity, regions, checks, turn, refusal: imaging.refusal(checks, turn) };
  } catch (error) {
    if (!(error instanceof imaging.InputError)) throw error;
    return { refused: error.message };
  }
}

function modelIn(folder) {
  const constants = JSON.parse(readFileSync(path.join(folder, "model.json"), "utf8"));
  const images = imaging.MODEL_IMAGES.map((name) => [name, readFileSync(path.join(folder, name))]);
  return imaging.openModel(constants, Object.fromEntries(images));
}

function write(name, content) {
  const file = path.join(job.out, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
}
