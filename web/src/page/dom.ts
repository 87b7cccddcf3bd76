/** Small helpers for elements. */

/** Make an element with attributes and children; texts are texts, never markup. */
export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svgElement(
  tag: string,
  attributes: Record<string, string | number>,
  ...children: (Node | string)[]
) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/** Find an element that the page's markup has. */
export function byId<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (!found) {
    throw new Error(`no element has the id ${id}`);
  }
  return found as Kind;
}

/** Write a probability as a whole percentage that is never rounded to certainty. */
export function percent(share: number): string {
  if (share > 0 && share < 0.01) {
    return "< 1%";
  }
  if (share > 0.99 && share < 1) {
    return "> 99%";
  }
  return `${Math.round(100 * share)}%`;
}

/** Write a number with a true minus sign. */
export function signed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Write a figure of any size; null stands for what is not finite. */
export function figure(value: number | null): string {
  return value === null ? "not finite" : signed(value, Math.abs(value) >= 100 ? 0 : 2);
}
