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
  "fdg|2fdg|dfdg|fdgpet|petfdg|fludeoxyglucose|fluorodeoxyglucose|fluordeoxyglucose|" +
    "fluorodesoxyglucose|fluordesoxyglucose|fluorodeoxydglucose|fluoro2deoxyglucose|" +
    "fluoro2deoxydglucose|2fluorodeoxyglucose|2fluorodeoxydglucose|2fluoro2deoxyglucose|" +
    "2fluoro2deoxydglucose|2deoxy2fluoroglucose|2deoxy2fluorodglucose|deoxyfluoroglucose|" +
    "fdgfluorodeoxyglucose|cb1031|35321007|c0046056",
);
const OTHER_TRACERS = whole(
  "(?:av45|fav45|florbeta|amyvid|neuraceq|flutemetamol|vizamyl|nav4694|azd4694|flutafuranol|av1451|" +
    "flortau|tauvid|t807|mk6240|pi2620|ro948|gtp1|thk5317|thk5351|apn1607|pmpbb3|fddnp|fdgal|fdopa|" +
    "fmiso|raclopride|fallypride|ucbj|pbr28|dpa714|ge180|flumazenil|altanserin|hmpao|exametazime|ceretec|" +
    "bicisate|neurolite|ioflupane|datscan|fpcit).*|pib|fbb|ecd|h2o|dota(?:tate|toc|noc)?|dopa|dasb|" +
    "psma(?:11|617|1007)?|choline",
);
const UNCORRECTED = whole("(?:n|no|non)ac(?!c).*|.*nac|.*(?:uncorrected|no[nt]?att).*");
const FLUORINE = ["18f", "f18", "fluorine18", "18fluorine", "fluor18", "18"];
const MARKS = [...FLUORINE, "srt", "sct", "umls"];
const ISOTOPES = [...FLUORINE, "11c", "c11", "15o", "o15", "99mtc", "tc99m", "123i", "i123"];
const UNSAID = ["", "na", "nan", "none", "null", "unknown", "unspecified", "undefined"];
const NO = ["none", "no", "false", "off", "0", "uncorrected", "nac", "notcorrected"];
const WHO = ["sub", "ses", "run", "space", "trc"];
const HOW = ["rec", "acq", "desc", "proc"];
const LONGEST = 40;

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
  const fields = ["AttenuationCorrection", "AttenuationCorrected", "AttenuationCorrectionMethod"];
  const field = fields.find((one) => NO.includes(key(sidecar?.content[one])));
  if (part === undefined && field === undefined) return;
  const said = part === undefined ? `${field} in its sidecar` : `its name (${part})`;
  throw new InputError(
    `${name}: required an image corrected for attenuation; ${said} says otherwise; give the other`,
  );
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
  if (UNSAID.includes(key(name))) return "";
  const parts = name.split(/--|[(),;/|]/).filter((part) => !["", ...MARKS].includes(key(part)));
  const known = parts.length > 0 && parts.every((part) => matches(FDG_NAMES, part, MARKS));
  return known || matches(FDG_NAMES, name, MARKS) ? FDG : name;
}

function* statedBy(sidecar?: Sidecar): Generator<readonly [string, string]> {
  if (!sidecar) return;
  const value = (field: string) => text(sidecar.content[field]);
  for (const field of ["TracerName", "Radiopharmaceutical"]) {
    const tracer = tracerName(value(field));
    if (tracer) yield [`${field} of ${sidecar.name}`, tracer.slice(0, LONGEST)];
  }
  const allowed = { TracerRadionuclide: [...FLUORINE, "c111a1", "77004003"], Modality: ["pt", "pet"] };
  for (const [field, values] of Object.entries(allowed)) {
    const stated = value(field);
    if (![...UNSAID, ...values].includes(key(stated))) {
      yield [`${field} of ${sidecar.name}`, stated.slice(0, LONGEST)];
    }
  }
}

function* tracersIn(name: string): Generator<string> {
  const parts = stem(name).split("_");
  for (const part of parts) {
    const tracer = part.startsWith("trc-") ? tracerName(part.slice(4)) : "";
    if (tracer) yield tracer;
  }
  for (const part of parts) {
    if (WHO.includes(part.split("-")[0]!)) continue;
    for (const word of new Set([part, ...part.split(/[^A-Za-z0-9]+/)])) {
      if (matches(FDG_NAMES, word, FLUORINE)) yield FDG;
      else if (matches(OTHER_TRACERS, word, ISOTOPES)) yield word;
    }
  }
}

function isUncorrected(part: string): boolean {
  const [label, ...rest] = part.split("-");
  if (HOW.includes(label!)) return UNCORRECTED.test(key(rest.join("-")));
  return ["nac", "noac"].includes(label!.toLowerCase());
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
