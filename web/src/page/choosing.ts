/** The ways to bring a scan: choose a file, drop one, or take an example. */

import type { Example } from "../answer";
import { byId, element } from "./dom";
import { fetchJson } from "./model-info";

export type Take = (name: string, content: Promise<ArrayBuffer>) => void;

export function offerFiles(take: Take): void {
  const input = byId<HTMLInputElement>("file");
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) {
      take(file.name, file.arrayBuffer());
    }
    // Lets the same file be chosen again.
    input.value = "";
  });
  let depth = 0;
  const veil = (shown: boolean) => document.body.classList.toggle("dropping", shown);
  addEventListener("dragenter", () => veil(++depth > 0));
  addEventListener("dragleave", () => veil(--depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    veil(false);
    const file = event.dataTransfer?.files[0];
    if (file) {
      take(file.name, file.arrayBuffer());
    }
  });
}

export async function offerExamples(take: Take): Promise<void> {
  const examples = (await fetchJson("examples/examples.json")) as Example[];
  const place = byId("examples");
  for (const example of examples) {
    const button = element(
      "button",
      { type: "button", "data-kind": example.kind },
      element("strong", {}, example.title),
      element(
        "span",
        { class: "small" },
        `test subject ${example.subject}, severity ${example.severity.toFixed(1)}`,
      ),
    );
    button.addEventListener("click", () => take(example.file, fetchedExample(example.file)));
    place.append(button);
  }
  place.parentElement!.hidden = examples.length === 0;
}

async function fetchedExample(file: string): Promise<ArrayBuffer> {
  const response = await fetch(`examples/${file}`);
  if (!response.ok) {
    throw new Error(`${file}: required an example; received status ${response.status}; build the page again`);
  }
  return response.arrayBuffer();
}
