/** Elements, files and numbers in words. */

/** Make an element with attributes, or a class, and children; texts are texts, never markup. */
export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: string | Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  if (typeof attributes === "string") made.className = attributes;
  else for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function byId<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element has the id ${id}`);
  return found as Kind;
}

export async function fetched(address: string): Promise<Response> {
  const response = await fetch(address);
  if (response.ok) return response;
  throw new Error(
    `${address}: required a file of this page; received status ${response.status}; reload the page`,
  );
}

export function save(content: BlobPart, name: string, type: string): void {
  const address = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: address, download: name }).click();
  // Some browsers begin to read a while after the click.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Write a probability as a whole percentage that is never rounded to certainty. */
export function percent(share: number): string {
  if (share > 0 && share < 0.01) return "< 1%";
  if (share > 0.99 && share < 1) return "> 99%";
  return `${Math.round(100 * share)}%`;
}

export function signed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return text.replace("-", Number(text) === 0 ? "" : "−");
}

/** Write a figure of any size; null stands for what is not finite. */
export function figure(value: number | null): string {
  return value === null ? "not finite" : signed(value, Math.abs(value) >= 100 ? 0 : 2);
}
