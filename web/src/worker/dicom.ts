/** DICOM, files or a ZIP of them, as NIfTI: one series of FDG-PET is taken, as `adpet.imaging.dicom` does. */

import { unzipSync } from "fflate";
// @ts-expect-error: it has no types; the package's own entry starts one more worker.
import dcm2niix from "../../node_modules/@niivue/dcm2niix/dist/dcm2niix.jpeg.js";
import { deniesCorrection, FDG, InputError, type Sidecar, tracerName } from "../imaging";

type Bytes = Uint8Array;
/** Of the compiled program: its files, and its command line. */
interface Program {
  FS: {
    mkdir(path: string): void;
    readdir(path: string): string[];
    writeFile(path: string, data: Bytes): void;
  } & {
    readFile(path: string): Bytes;
  };
  callMain(options: string[]): number;
}
interface Image {
  bytes: Bytes;
  slices: number;
  sidecar: Record<string, unknown>;
}

/** Half of what a browser gives to one page; less than what Python unpacks. */
const MOST_BYTES = 2 ** 30;
const MOST_FILES = 20_000;
const LEAST_SLICES = 8;
const HEAD = 2 ** 16;
const DIRECTORY = "1.2.840.10008.1.3.10\0";
/** Tags as they are stored. */
const [SERIES_NUMBER, CODE_MEANING, INJECTED] = ["\x20\0\x11\0", "\x08\0\x04\x01", "\x18\0\x72\x10"];
const DRUG_CODE = "\x54\0\x04\x03";
/** Names and dates are left out; the user's own defaults and comments too. */
const OPTIONS = "-g i -z n -b y -ba y -f scan -o /out -c".split(" ");

export const isDicom = (bytes: Bytes): boolean =>
  latin(bytes.subarray(128, 132)) === "DICM" || (bytes[0] === 8 && bytes[1] === 0);
export const isZip = (bytes: Bytes): boolean => latin(bytes.subarray(0, 4)) === "PK\x03\x04";

/** Convert files to NIfTI with the sidecar of the header; throws InputError, which begins with `name`. */
export async function fromDicom(files: Bytes[], name: string): Promise<{ bytes: Bytes; sidecar: Sidecar }> {
  const refuse = (reason: string): never => {
    throw new InputError(`${name}: ${reason}`);
  };
  const unpacked = files.flatMap((bytes) => (isZip(bytes) ? unzipped(bytes, refuse) : [bytes]));
  const found = unpacked.filter(
    (bytes) => isDicom(bytes) && !latin(bytes.subarray(0, 512)).includes(DIRECTORY),
  );
  if (!found.length)
    refuse("required images in NIfTI or DICOM (a ZIP: DICOM alone); received none; choose others");
  const kinds = found.map((bytes) => kindOf(bytes));
  const pet = found.filter((_, index) => kinds[index] === "PT");
  const images = pet.length ? await convert(pet, refuse) : [];
  const volumes = images.filter(({ slices }) => slices >= LEAST_SLICES);
  const fdg = volumes.filter((image) => tracerName(tracerOf(image)) === FDG);
  const possible = fdg.length ? fdg : volumes.filter((image) => !tracerName(tracerOf(image)));
  if (possible.length !== 1) {
    const series = images.map(
      (image) => `${image.sidecar["SeriesNumber"]} (PT, ${tracerOf(image)}, ${image.slices} slices)`,
    );
    const others = [...new Set(kinds)].map(
      (kind) => `${kind} (${kinds.filter((other) => other === kind).length} files)`,
    );
    refuse(
      `required one series of FDG-PET, corrected for attenuation; received ${(series.length ? series : others).join(", ")}; ` +
        "choose the files of one series",
    );
  }
  const { bytes, sidecar } = possible[0]!;
  const isOfIt = (each: Bytes) => Number(fact(each, SERIES_NUMBER)) === sidecar["SeriesNumber"];
  const content = { ...sidecar, ...toldBy(pet.find(isOfIt) ?? pet[0]!, sidecar) };
  return { bytes, sidecar: { name: "its header", content } };
}

/** What the header says, but dcm2niix's sidecar does not: the code of the tracer, and when it was injected. */
function toldBy(header: Bytes, sidecar: Image["sidecar"]): Image["sidecar"] {
  const head = latin(header.subarray(0, HEAD));
  const code = head.indexOf(DRUG_CODE);
  // Up to the next element of its group: another code's meaning is no tracer.
  const end = head.indexOf("\x54\0", code + 4);
  const Tracer = code < 0 ? "" : fact(header.subarray(code, end < 0 ? HEAD : end), CODE_MEANING);
  const injected = /^(\d\d)(\d\d)(\d\d)/.exec(fact(header, INJECTED))?.slice(1).join(":");
  const delay = inSeconds(sidecar["AcquisitionTime"]) - inSeconds(injected);
  return { Tracer, ...(delay > 0 && { InjectionStart: -delay }) };
}

const inSeconds = (clock: unknown): number =>
  String(clock ?? "")
    .split(":")
    .reduce((sum, part) => 60 * sum + Number(part || NaN), 0);

function unzipped(bytes: Bytes, refuse: (reason: string) => never): Bytes[] {
  let [count, size] = [0, 0];
  const filter = ({ name, originalSize }: { name: string; originalSize: number }): boolean => {
    if (/^[/\\]|^[^/\\]*:|(^|[/\\])\.\.([/\\]|$)/.test(name)) {
      refuse("one of its paths leads out of the ZIP; pack the scan again");
    }
    size += originalSize;
    if (++count > MOST_FILES || size > MOST_BYTES) {
      refuse(
        `required a ZIP of ${MOST_FILES} files and ${MOST_BYTES} bytes at most; received more; pack one scan alone`,
      );
    }
    return originalSize > 0;
  };
  try {
    return Object.values(unzipSync(bytes, { filter }));
  } catch (error) {
    if (error instanceof InputError) throw error;
    return refuse("the ZIP is damaged: unpack it yourself, and choose the files");
  }
}

async function convert(files: Bytes[], refuse: (reason: string) => never): Promise<Image[]> {
  const said: string[] = [];
  const print = (text: string) => said.push(text);
  const program = (await dcm2niix({ print, printErr: print })) as Program;
  program.FS.mkdir("/in");
  program.FS.mkdir("/out");
  files.forEach((bytes, index) => program.FS.writeFile(`/in/${index}.dcm`, bytes));
  const status = program.callMain([...OPTIONS, "", "/in"]);
  const names = program.FS.readdir("/out");
  if (said.join().includes("Missing images") || names.some((name) => name.includes("_Eq"))) {
    refuse("slices are missing or damaged: export the series again");
  }
  const sidecars = names.filter((name) => name.endsWith(".json"));
  if (status || !sidecars.length) {
    refuse(
      `cannot be converted to one image (dcm2niix: status ${status}): export it again, or convert it yourself`,
    );
  }
  return sidecars.map((name) => {
    const bytes = program.FS.readFile(`/out/${name.replace(/json$/, "nii")}`);
    const sidecar = JSON.parse(latin(program.FS.readFile(`/out/${name}`))) as Image["sidecar"];
    return { bytes, sidecar, slices: new DataView(bytes.buffer, bytes.byteOffset).getInt16(46, true) };
  });
}

const tracerOf = ({ sidecar }: Image): string =>
  String(sidecar["Radiopharmaceutical"] ?? sidecar["TracerName"] ?? "");

/** The modality, and whether the header says that attenuation is not corrected. */
function kindOf(bytes: Bytes): string {
  const tags = ["\x08\0\x60\0", "\x28\0\x51\0", "\x54\0\x01\x11"];
  const [kind, steps, method] = tags.map((tag) => fact(bytes, tag).trim()) as [string, string, string];
  const isCorrected = steps.includes("ATTN") || (method ? !deniesCorrection(method) : !steps);
  return `${kind || "?"}${isCorrected || kind !== "PT" ? "" : ", not attenuation-corrected"}`;
}

/** The text of an element of the header, whose tag is given as it is stored, low byte first. */
function fact(bytes: Bytes, tag: string): string {
  const head = latin(bytes.subarray(0, HEAD));
  const swapped = [1, 0, 3, 2].map((index) => tag[index]!).join("");
  const order = [tag, swapped].find((one) => head.indexOf(one) > 0);
  const at = head.indexOf(order ?? tag);
  if (order === undefined || at + 8 > head.length) return "";
  const [view, isLittle] = [new DataView(bytes.buffer, bytes.byteOffset + at), order === tag];
  const isExplicit = /^[A-Z]{2}$/.test(head.slice(at + 4, at + 6));
  const length = isExplicit ? view.getUint16(6, isLittle) : view.getUint32(4, isLittle);
  return head.slice(at + 8, at + 8 + length).replace(/[\0 ]+$/, "");
}

function latin(bytes: Bytes): string {
  return new TextDecoder("latin1").decode(bytes);
}
