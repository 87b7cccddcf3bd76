// Simulated scans that the page offers: of test subjects only, since the network has not seen these.

import { readFile, readdir } from "node:fs/promises";
import path from "node:path";

// Severity in the simulation: 0 is a healthy brain, 1 the typical deficit of AD dementia.
const WANTED = [
  { kind: "AD", title: "AD, typical", diagnosis: "AD", severity: 1.2 },
  { kind: "CN", title: "Cognitively normal", diagnosis: "CN", severity: 0 },
  { kind: "mild", title: "AD, mild", diagnosis: "AD", severity: 0.45 },
];

/** Choose a scan of each kind: the first session of the test subject whose severity is nearest. */
export async function chosenExamples(project) {
  const split = await table(path.join(project, "data/processed/split.csv"), ",");
  const truth = await table(path.join(project, "data/simulated/truth/severity.tsv"), "\t");
  const tested = new Set(split.filter((row) => row.part === "test").map((row) => row.subject));
  const candidates = truth
    .filter((row) => row.session === "01" && tested.has(row.subject))
    .sort((a, b) => a.subject.localeCompare(b.subject));
  const chosen = [];
  for (const wanted of WANTED) {
    const distance = (row) => Math.abs(row.severity - wanted.severity);
    const [nearest] = candidates
      .filter((row) => row.diagnosis === wanted.diagnosis)
      .filter((row) => !chosen.some((example) => example.subject === row.subject))
      .sort((a, b) => distance(a) - distance(b));
    const source = nearest && (await scanOf(project, nearest));
    if (!source) continue;
    const { subject, severity } = nearest;
    chosen.push({ ...wanted, severity: Number(severity), subject, file: path.basename(source), source });
  }
  return chosen;
}

async function scanOf(project, { subject, session }) {
  const folder = path.join(project, "data/simulated/raw", `sub-${subject}`, `ses-${session}`, "pet");
  const names = await readdir(folder).catch(() => []);
  const name = names.filter((file) => /\.nii(\.gz)?$/.test(file)).sort()[0];
  return name && path.join(folder, name);
}

/** Read a table without quotes into rows by column; empty if there is no such file. */
async function table(file, delimiter) {
  const text = await readFile(file, "utf8").catch(() => "");
  const [header, ...lines] = text.split(/\r?\n/).filter(Boolean);
  const columns = header?.split(delimiter) ?? [];
  return lines.map((line) => Object.fromEntries(line.split(delimiter).map((cell, n) => [columns[n], cell])));
}
