/** The ways to bring a scan: choose a file, drop one, or take an example. */

import { readSidecar, type Sidecar } from "../imaging";
import { byId, element, fetched } from "./dom";

type Take = (name: string, content: Promise<ArrayBuffer[]>, sidecar?: Promise<Sidecar>) => void;

interface Example {
  kind: string;
  title: string;
  severity: number;
  subject: string;
  file: string;
}

export function offerFiles(take: Take): void {
  for (const id of ["file", "folder"]) {
    const input = byId<HTMLInputElement>(id);
    input.addEventListener("change", () => {
      takeFiles([...input.files!], take);
      // Lets the same file be chosen again.
      input.value = "";
    });
  }
  let depth = 0;
  const veil = (to: number) => document.body.classList.toggle("dropping", (depth = to) > 0);
  addEventListener("dragenter", () => veil(depth + 1));
  addEventListener("dragleave", () => veil(depth - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    veil(0);
    const entries = [...(event.dataTransfer?.items ?? [])].map(
      (item) => item.webkitGetAsEntry() ?? item.getAsFile(),
    );
    void Promise.all(
      entries.map((entry) => (entry instanceof File ? [entry] : entry ? filesIn(entry) : [])),
    ).then((files) => takeFiles(files.flat(), take));
  });
}

/**
 * Take the first NIfTI file with its sidecar, or all as one scan in DICOM, whose names are not shown: they
 * are often patients'.
 */
function takeFiles(files: File[], take: Take): void {
  const isSidecar = ({ name }: File) => /\.json$/i.test(name);
  const stem = ({ name }: File) => name.replace(/\.(json|nii(\.gz)?)$/i, "");
  const seen = files.filter((file) => !file.name.startsWith("."));
  const scans = seen.filter((file) => !isSidecar(file));
  const single =
    scans.find(({ name }) => /\.nii(\.gz)?$/i.test(name)) ??
    (scans.length < 2 ? (scans[0] ?? seen[0]) : undefined);
  if (!seen.length) return;
  const contents = (all: File[]) => Promise.all(all.map((file) => file.arrayBuffer()));
  if (single && /\.(?!dcm$|ima$|zip$)\w+$/i.test(single.name)) {
    const others = seen.filter((file) => file !== single && isSidecar(file));
    const own = others.find((file) => stem(file) === stem(single));
    // Of several, another name is another scan's.
    const about = own ?? (others.length === 1 && scans.length === 1 ? others[0] : undefined);
    const read = async (file: File) => readSidecar(file.name, new Uint8Array(await file.arrayBuffer()));
    take(single.name, contents([single]), about && read(about));
  } else take("dicom", contents(scans));
}

async function filesIn(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile)
    return [await new Promise<File>((found, lost) => (entry as FileSystemFileEntry).file(found, lost))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const inside: FileSystemEntry[] = [];
  // Some browsers list a hundred at a time.
  for (let more = true; more;) {
    const listed = await new Promise<FileSystemEntry[]>((found, lost) => reader.readEntries(found, lost));
    inside.push(...listed);
    more = listed.length > 0;
  }
  return (await Promise.all(inside.map(filesIn))).flat();
}

export async function offerExamples(take: Take): Promise<void> {
  const examples = (await (await fetched("examples/examples.json")).json()) as Example[];
  const place = byId("examples");
  for (const { kind, title, subject, severity, file } of examples) {
    const text = `test subject ${subject}, severity ${severity.toFixed(1)}`;
    const words = [element("strong", {}, title), element("span", "small", text)];
    const button = element("button", { type: "button", "data-kind": kind }, ...words);
    const content = async () => [await (await fetched(`examples/${file}`)).arrayBuffer()];
    button.addEventListener("click", () => take(file, content()));
    place.append(button);
  }
  place.parentElement!.hidden = examples.length === 0;
}
