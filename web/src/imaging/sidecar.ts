/** Tracer, correction and frames by name and JSON sidecar, as `adpet.imaging.sidecar` reads them. */

import { InputError } from "./errors";
import { fixed, general } from "./wording";

/** A JSON file that came with a scan. */
export interface Sidecar {
  readonly name: string;
  readonly content: Readonly<Record<string, unknown>>;
}

export const FDG = "FDG";
const FDG_NAMES = whole(
  "(?:2|d|pet)?fdg(?:pet|fluorodeoxyglucose)?|2?flu(?:oro?)?2?des?oxyd?glu[ck]ose|" +
    "(?:2deoxy2|deoxy)fluorod?glucose|cb1031|35321007|c0046056",
);
const OTHER_TRACERS = whole(
  "(?:av45|fav45|florbeta|amyvid|neuraceq|flutemetamol|vizamyl|nav4694|azd4694|flutafuranol|av1451|" +
    "flortau|tauvid|t807|mk6240|pi2620|ro948|gtp1|thk5317|thk5351|apn1607|pmpbb3|fddnp|fdgal|fdopa|" +
    "fmiso|raclopride|fallypride|ucbj|pbr28|dpa714|ge180|flumazenil|altanserin|hmpao|exametazime|ceretec|" +
    "bicisate|neurolite|ioflupane|datscan|fpcit).*|pib|fbb|ecd|h2o|dota(?:tate|toc|noc)?|dopa|dasb|" +
    "psma(?:11|617|1007)?|choline",
);
const UNCORRECTED = whole("(?:n|no|non)ac(?!c).*|.*nac|.*(?:uncorrected|no[nt]?att).*|no[nt]?corr.*");
const CORRECTION = ["AttenuationCorrection", "AttenuationCorrected", "AttenuationCorrectionMethod"];
const NAC = ["nac", "noac", "nonac", "uncorrected", "uncorr"];
const NO = whole(
  "none|no|false|off|0|without|not(?:applied|performed|done)|.*(?:uncorr|no[nt]?att).*|no[nt]?corr.*",
);
const PET = ["pt", "pet", "petct", "petmr", "petmri"];
const CT_OR_MR = ["ct", "mr", "mri"];
const FLUORINE = ["18f", "f18", "fluorine18", "18fluorine", "fluorinef18", "fluor18", "18"];
const MARKS = [...FLUORINE, "srt", "sct", "umls"];
const ISOTOPES = [...FLUORINE, "11c", "c11", "15o", "o15", "99mtc", "tc99m", "123i", "i123"];
const UNSAID = ["", "na", "nan", "none", "null", "unknown", "unspecified", "undefined"];
const WHO = ["sub", "ses", "run", "space", "trc"];
const HOW = ["rec", "acq", "desc", "proc"];
const LONGEST = 40;
const FLUORINE_S = [6000, 7200] as const;
const LONGEST_SCAN_H = 12;

/** Refuse what name or sidecar call another tracer, or not corrected for attenuation. */
export function requireFdg(name: string, sidecar?: Sidecar): void {
  const stated = [
    ...[...tracersIn(name)].map((tracer) => ["its name", tracer] as const),
    ...statedBy(sidecar),
  ];
  const [first] = stated;
  const other = stated.find(([, tracer]) => (tracer === FDG) !== (first![1] === FDG));
  if (first && (other || first[1] !== FDG)) {
    const clash = other ? `, but ${other[0]} ${other[1]}` : "";
    throw new InputError(
      `${name}: required FDG; ${first[0]} says ${first[1]}${clash}; correct what is wrong, or give a scan of FDG`,
    );
  }
  const part = stem(name).split("_").find(isUncorrected);
  const description = text(sidecar?.content["SeriesDescription"]);
  const given = CORRECTION.filter((one) => text(sidecar?.content[one]));
  const isDescribed = !given.length && namesNac(description);
  const field =
    given.find((one) => deniesCorrection(sidecar!.content[one])) ??
    (isDescribed ? "SeriesDescription" : undefined);
  if (part === undefined && field === undefined) return;
  const said = part === undefined ? `${field} in its sidecar` : `its name (${part})`;
  throw new InputError(
    `${name}: required an image corrected for attenuation; ${said} says otherwise; give the other`,
  );
}

/** Read a sidecar in UTF-8 or UTF-16, with Python's NaN. */
export function readSidecar(name: string, bytes: Uint8Array): Sidecar {
  const kind = { "255,254": "utf-16le", "254,255": "utf-16be" }[String([...bytes.subarray(0, 2)])] ?? "utf-8";
  const json = new TextDecoder(kind)
    .decode(bytes)
    .replace(/("(?:[^"\\]|\\.)*")|-?\b(?:NaN|Infinity)\b/g, (_, kept?: string) => kept ?? "null");
  let content: unknown;
  try {
    content = JSON.parse(json);
  } catch {
    throw new InputError(`${name} is not JSON; mend it`);
  }
  if (typeof content === "object" && content && !Array.isArray(content)) {
    return { name, content: content as Sidecar["content"] };
  }
  throw new InputError(`${name} holds no names and values; mend it`);
}

/** The seconds of each frame that are averaged, or null where nothing tells. */
export function usedSeconds(
  name: string,
  { content }: Sidecar,
  frames: number,
  minutes: readonly [number, number],
): number[] | null {
  if (frames === 1) return null;
  const given = content["FrameDuration"] ?? [];
  const unsaid = Array.isArray(given) && !given.length;
  let durations = numbers(given);
  let starts = numbers(content["FrameTimesStart"]);
  const middles = numbers(content["FrameReferenceTime"]).slice(0, durations.length);
  if (!starts.length) starts = middles.map((time, n) => time - durations[n]! / 2);
  if (starts.length !== frames || starts.some((one, n) => n > 0 && one <= starts[n - 1]!)) starts = [];
  if (unsaid && !starts.length) return null;
  if (unsaid) {
    const steps = starts.slice(1).map((one, n) => one - starts[n]!);
    durations = [...steps, steps.at(-1)!];
  }
  if (durations.length !== frames || Math.min(...durations) <= 0) {
    const listed = Array.isArray(given) ? given.join(" ") : String(given);
    throw new InputError(
      `${name}: required FrameDuration in s for ${frames} frames; received '${listed}'; mend it`,
    );
  }
  if (!starts.length) return durations;
  const [injection] = numbers(content["InjectionStart"]);
  const [scan] = numbers(content["ScanStart"]);
  const shift = (scan !== undefined && starts[0]! < scan ? scan : 0) - (injection ?? 0);
  const [low, high] = [60 * minutes[0], 60 * minutes[1]];
  const spans = starts.map((start, n) => [start + shift, start + shift + durations[n]!] as const);
  const inside = spans.map(([begin, end], n) =>
    low <= begin && end <= high ? durations[n]! : Math.max(Math.min(end, high) - Math.max(begin, low), 0),
  );
  const hours = (spans.at(-1)![1] - spans[0]![0]) / 3600;
  if (hours > LONGEST_SCAN_H) {
    throw new InputError(
      `${name}: required frame times in s; received ${fixed(hours, 0)} h; divide milliseconds by 1000`,
    );
  }
  if (inside.some((one) => one > 0)) return inside;
  if (spans[0]![0] < low && injection !== undefined) {
    throw new InputError(
      `${name}: its frames end ${fixed(spans.at(-1)![1] / 60, 0)} min after injection, before the ` +
        `${general(minutes[0])} to ${general(minutes[1])} min of cohort.frames_minutes; give later frames`,
    );
  }
  return durations;
}

export function tracerName(text: string): string {
  const name = text.split(/\s+/).filter(Boolean).join(" ");
  if ([...UNSAID, ...MARKS].includes(key(name))) return "";
  const parts = name.split(/--|[(),;/|]/).filter((part) => !["", ...CT_OR_MR, ...MARKS].includes(key(part)));
  const known = parts.length > 0 && parts.every((part) => matches(FDG_NAMES, part, MARKS));
  return known || matches(FDG_NAMES, name, MARKS) ? FDG : name;
}

function* statedBy(sidecar?: Sidecar): Generator<readonly [string, string]> {
  if (!sidecar) return;
  const value = (field: string) => text(sidecar.content[field]);
  for (const field of ["TracerName", "Radiopharmaceutical", "Tracer", "Radiotracer"]) {
    const tracer = tracerName(value(field));
    if (tracer) yield [`${field} of ${sidecar.name}`, tracer.slice(0, LONGEST)];
  }
  const allowed = { TracerRadionuclide: [...FLUORINE, "c111a1", "77004003"], Modality: PET };
  for (const [field, values] of Object.entries(allowed)) {
    const stated = value(field);
    if (![...UNSAID, ...values].includes(key(stated)) && tracerName(stated) !== FDG) {
      yield [`${field} of ${sidecar.name}`, stated.slice(0, LONGEST)];
    }
  }
  for (const seconds of numbers(sidecar.content["RadionuclideHalfLife"]).filter(Boolean)) {
    if (seconds <= FLUORINE_S[0] || seconds >= FLUORINE_S[1]) {
      yield [`RadionuclideHalfLife of ${sidecar.name}`, `${general(seconds)} s`];
    }
  }
  // Word by word: the text may have a name, which is not to be quoted.
  for (const tracer of value("SeriesDescription")
    .split(/[\s_]+/)
    .flatMap((word) => [...namedIn(word)])) {
    yield [`SeriesDescription of ${sidecar.name}`, tracer.slice(0, LONGEST)];
  }
}

function* tracersIn(name: string): Generator<string> {
  const parts = stem(name).split("_");
  for (const part of parts) {
    const tracer = part.startsWith("trc-") ? tracerName(part.slice(4)) : "";
    if (tracer) yield tracer;
  }
  for (const part of parts) {
    if (!WHO.includes(part.split("-")[0]!)) yield* namedIn(part);
  }
}

function* namedIn(about: string): Generator<string> {
  for (const word of new Set([about, ...wordsOf(about)])) {
    if (matches(FDG_NAMES, word, FLUORINE)) yield FDG;
    else if (matches(OTHER_TRACERS, word, ISOTOPES)) yield word;
  }
}

/** True if a field says that attenuation was not corrected. */
export function deniesCorrection(value: unknown): boolean {
  const first = text(value).split(/[,;(]/)[0]!;
  return NO.test(key(first)) || namesNac(first);
}

const namesNac = (about: string): boolean => wordsOf(about.toLowerCase()).some((word) => NAC.includes(word));
const wordsOf = (about: string): string[] => about.split(/[^A-Za-z0-9]+/);

function isUncorrected(part: string): boolean {
  const [label, ...rest] = part.split("-");
  if (HOW.includes(label!)) return UNCORRECTED.test(key(rest.join("-")));
  return !WHO.includes(label!) && namesNac(part);
}

function numbers(value: unknown): number[] {
  const values: unknown[] = Array.isArray(value) ? value : [value];
  return values.every((one) => typeof one === "number" && Number.isFinite(one)) ? (values as number[]) : [];
}

/** True if a text without one of `marks` is a name. */
function matches(names: RegExp, word: string, marks: readonly string[]): boolean {
  const plain = key(word);
  return [plain, ...marks.map((mark) => plain.replace(mark, ""))].some((form) => names.test(form));
}

function key(value: unknown): string {
  return text(value)
    .toLowerCase()
    .normalize("NFKD")
    .replace(/[^a-z0-9]/g, "");
}

function text(value: unknown): string {
  return value === undefined || value === null ? "" : String(value);
}

function stem(name: string): string {
  return name.replace(/\.(nii|hdr|img)(\.gz)?$/i, "");
}

function whole(alternatives: string): RegExp {
  return new RegExp(`^(?:${alternatives})$`);
}
