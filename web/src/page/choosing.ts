/** The ways to bring a scan: choose a file, drop one, or take an example. */

import type { Sidecar } from "../imaging";
import { byId, element, fetched } from "./dom";

type Take = (name: string, content: Promise<ArrayBuffer>, sidecar?: Promise<Sidecar>) => void;

interface Example {
  kind: string;
  title: string;
  severity: number;
  subject: string;
  file: string;
}

export function offerFiles(take: Take): void {
  const first = (files: FileList | null | undefined) => {
    const isSidecar = ({ name }: File) => /\.json$/i.test(name);
    const all = [...(files ?? [])];
    const scan = all.find((file) => !isSidecar(file)) ?? all[0];
    const about = all.find((file) => file !== scan && isSidecar(file));
    if (scan) take(scan.name, scan.arrayBuffer(), about && readSidecar(about));
  };
  const input = byId<HTMLInputElement>("file");
  input.addEventListener("change", () => {
    first(input.files);
    // Lets the same file be chosen again.
    input.value = "";
  });
  let depth = 0;
  const veil = (to: number) => document.body.classList.toggle("dropping", (depth = to) > 0);
  addEventListener("dragenter", () => veil(depth + 1));
  addEventListener("dragleave", () => veil(depth - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    veil(0);
    first(event.dataTransfer?.files);
  });
}

/** Read a sidecar; one that is no JSON object says nothing, as for `adpet predict`. */
async function readSidecar(file: File): Promise<Sidecar> {
  try {
    const content = JSON.parse(await file.text()) as unknown;
    return { name: file.name, content: { ...(content as Record<string, unknown>) } };
  } catch {
    return { name: file.name, content: {} };
  }
}

export async function offerExamples(take: Take): Promise<void> {
  const examples = (await (await fetched("examples/examples.json")).json()) as Example[];
  const place = byId("examples");
  for (const { kind, title, subject, severity, file } of examples) {
    const text = `test subject ${subject}, severity ${severity.toFixed(1)}`;
    const words = [element("strong", {}, title), element("span", "small", text)];
    const button = element("button", { type: "button", "data-kind": kind }, ...words);
    const content = async () => (await fetched(`examples/${file}`)).arrayBuffer();
    button.addEventListener("click", () => take(file, content()));
    place.append(button);
  }
  place.parentElement!.hidden = examples.length === 0;
}
