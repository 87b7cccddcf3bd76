/** The ways to bring a scan: choose a file, drop one, or take an example. */

import { byId, element, fetched } from "./dom";

type Take = (name: string, content: Promise<ArrayBuffer>) => void;

interface Example {
  kind: string;
  title: string;
  severity: number;
  subject: string;
  file: string;
}

export function offerFiles(take: Take): void {
  const first = (files: FileList | null | undefined) => {
    if (files?.[0]) take(files[0].name, files[0].arrayBuffer());
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
