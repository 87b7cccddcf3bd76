// Build the page: `node build.mjs [--export DIR] [--project DIR] [--out DIR]`.
// One folder receives all that it needs at run time: code, model, network runtime, examples.

import { createHash } from "node:crypto";
import { cp, mkdir, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { chosenExamples } from "./examples.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const RUNTIME = "ort-wasm-simd-threaded.wasm";
const CONVERTER = "dcm2niix.jpeg.wasm";
const SHARED = { bundle: true, format: "esm", target: "es2022", minify: true, legalComments: "linked" };

const { values: options } = parseArgs({
  options: {
    project: { type: "string", default: path.join(HERE, "..") },
    export: { type: "string" },
    out: { type: "string", default: path.join(HERE, "dist") },
  },
});
const project = path.resolve(options.project);
const model = path.resolve(options.export ?? path.join(project, "results/export"));
const out = path.resolve(options.out);
const partial = `${out}.partial`;

const names = await modelFiles();
await rm(partial, { recursive: true, force: true });
await mkdir(partial, { recursive: true });
await Promise.all([
  bundle(),
  cp(path.join(HERE, "static"), partial, { recursive: true }),
  cp(path.join(HERE, "node_modules/onnxruntime-web/dist", RUNTIME), path.join(partial, RUNTIME)),
  cp(path.join(HERE, "node_modules/@niivue/dcm2niix/dist", CONVERTER), path.join(partial, CONVERTER)),
  ...names.map((name) => cp(path.join(model, name), path.join(partial, "model", name))),
  copyExamples(),
]);
await writeServiceWorker();
await rm(out, { recursive: true, force: true });
await rename(partial, out);
const files = await listed(out);
const sizes = await Promise.all(files.map(async (file) => (await stat(path.join(out, file))).size));
const megabytes = (sizes.reduce((sum, size) => sum + size, 0) / 1e6).toFixed(1);
console.log(`${path.relative(process.cwd(), out) || "."}: ${files.length} files, ${megabytes} MB`);

/** Names of the model's files, which must be those that model.json names. */
async function modelFiles() {
  const file = path.join(model, "model.json");
  const text = await readFile(file, "utf8").catch(() => {
    const where = path.relative(process.cwd(), file);
    fail(`${where}: required an exported model; received none; run \`make repro\``);
  });
  const { files } = JSON.parse(text);
  for (const [name, digest] of Object.entries(files)) {
    const content = await readFile(path.join(model, name)).catch(() => "");
    if (sha256(content) === digest) continue;
    fail(`${name}: required the file that model.json names; received another; run \`dvc repro export\``);
  }
  return ["model.json", ...Object.keys(files)];
}

async function bundle() {
  await build({
    ...SHARED,
    entryPoints: { page: path.join(HERE, "src/page/main.ts"), style: path.join(HERE, "src/page/style.css") },
    outdir: partial,
    splitting: true,
    chunkNames: "[name]-[hash]",
    // The package's main file imports files that a bundler cannot resolve; this one is complete.
    alias: { "@niivue/niivue": path.join(HERE, "node_modules/@niivue/niivue/dist/index.js") },
  });
  await build({
    ...SHARED,
    entryPoints: { worker: path.join(HERE, "src/worker/main.ts") },
    outdir: partial,
    // What dcm2niix imports in Node alone.
    external: ["module"],
  });
}

async function copyExamples() {
  const folder = path.join(partial, "examples");
  const examples = await chosenExamples(project);
  await mkdir(folder, { recursive: true });
  for (const { source, file } of examples) await cp(source, path.join(folder, file));
  const described = examples.map(({ source: _, ...example }) => example);
  await writeFile(path.join(folder, "examples.json"), JSON.stringify(described, null, 1));
}

/** The service worker keeps these files under the digest of all of them: a changed byte is another version. */
async function writeServiceWorker() {
  const files = (await listed(partial)).filter((file) => !file.endsWith(".LEGAL.txt"));
  const contents = await Promise.all(files.map((file) => readFile(path.join(partial, file))));
  const version = sha256(files.map((file, index) => `${file}\0${sha256(contents[index])}\n`).join(""));
  await build({
    ...SHARED,
    entryPoints: { sw: path.join(HERE, "src/offline/sw.ts") },
    outdir: partial,
    define: { VERSION: JSON.stringify(version.slice(0, 16)), FILES: JSON.stringify(files) },
  });
}

async function listed(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath ?? entry.path, entry.name)))
    .map((file) => file.split(path.sep).join("/"))
    .sort();
}

function sha256(content) {
  return createHash("sha256").update(content).digest("hex");
}

function fail(sentence) {
  console.error(sentence);
  process.exit(1);
}
