// Build the page: `node build.mjs [--export DIR] [--project DIR] [--out DIR]`.
// All that it needs at run time is copied into one folder: code, model, network runtime, examples.

import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { chosenExamples } from "./examples.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const RUNTIME = "ort-wasm-simd-threaded.wasm";

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
const aside = `${out}.partial`;

await main();

async function main() {
  await requireModel();
  await rm(aside, { recursive: true, force: true });
  await mkdir(aside, { recursive: true });
  await Promise.all([bundle(), copyModel(), copyRuntime(), copyExamples(), copyStatic()]);
  await writeServiceWorker();
  await rm(out, { recursive: true, force: true });
  await rename(aside, out);
  const files = await listed(out);
  const sizes = await Promise.all(files.map(async (file) => (await stat(path.join(out, file))).size));
  const megabytes = sizes.reduce((sum, size) => sum + size, 0) / 1e6;
  console.log(
    `${path.relative(process.cwd(), out) || "."}: ${files.length} files, ${megabytes.toFixed(1)} MB`,
  );
}

async function requireModel() {
  const file = path.join(model, "model.json");
  const text = await readFile(file, "utf8").catch(() => {
    fail(
      `${path.relative(process.cwd(), file)}: required an exported model; received none; run \`make repro\``,
    );
  });
  const { files } = JSON.parse(text);
  for (const [name, digest] of Object.entries(files)) {
    const content = await readFile(path.join(model, name)).catch(() => Buffer.alloc(0));
    if (sha256(content) !== digest) {
      fail(`${name}: required the file that model.json names; received another; run \`dvc repro export\``);
    }
  }
}

function shared() {
  return {
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    legalComments: "linked",
    logLevel: "warning",
  };
}

async function bundle() {
  await build({
    ...shared(),
    entryPoints: { page: path.join(HERE, "src/page/main.ts"), style: path.join(HERE, "src/page/style.css") },
    outdir: aside,
    splitting: true,
    chunkNames: "[name]-[hash]",
    // The package's main file imports files that a bundler cannot resolve; this one is complete.
    alias: { "@niivue/niivue": path.join(HERE, "node_modules/@niivue/niivue/dist/index.js") },
  });
  await build({
    ...shared(),
    entryPoints: { worker: path.join(HERE, "src/worker/main.ts") },
    outdir: aside,
  });
}

async function copyModel() {
  const { files } = JSON.parse(await readFile(path.join(model, "model.json"), "utf8"));
  await mkdir(path.join(aside, "model"), { recursive: true });
  for (const name of ["model.json", ...Object.keys(files)]) {
    await copyFile(path.join(model, name), path.join(aside, "model", name));
  }
}

async function copyRuntime() {
  await copyFile(path.join(HERE, "node_modules/onnxruntime-web/dist", RUNTIME), path.join(aside, RUNTIME));
}

async function copyExamples() {
  const examples = await chosenExamples(project);
  await mkdir(path.join(aside, "examples"), { recursive: true });
  for (const { source, file } of examples) {
    await copyFile(source, path.join(aside, "examples", file));
  }
  const told = examples.map(({ source: _, ...example }) => example);
  await writeFile(path.join(aside, "examples", "examples.json"), JSON.stringify(told, null, 1));
}

async function copyStatic() {
  for (const name of await readdir(path.join(HERE, "static"))) {
    await copyFile(path.join(HERE, "static", name), path.join(aside, name));
  }
}

/** The service worker keeps these files under the digest of all of them: one byte changed is another version. */
async function writeServiceWorker() {
  const files = (await listed(aside)).filter((file) => !file.endsWith(".LEGAL.txt"));
  const digest = createHash("sha256");
  for (const file of files) {
    digest.update(`${file}\0${sha256(await readFile(path.join(aside, file)))}\n`);
  }
  await build({
    ...shared(),
    entryPoints: { sw: path.join(HERE, "src/offline/sw.ts") },
    outdir: aside,
    define: {
      VERSION: JSON.stringify(digest.digest("hex").slice(0, 16)),
      FILES: JSON.stringify(files),
    },
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
