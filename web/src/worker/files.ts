/** Fetch the model; over HTTPS and on loopback, its files are checked against the digests of `model.json`. */

import { InputError, MODEL_IMAGES, openModel, type Model } from "../imaging";
import type { ModelDocument } from "../model.generated";

export async function fetchModel(): Promise<{ model: Model; network: Uint8Array<ArrayBuffer> }> {
  const constants = JSON.parse(new TextDecoder().decode(await fetched("model.json"))) as ModelDocument;
  const names = [...MODEL_IMAGES, constants.network.file];
  const contents = await Promise.all(names.map((name) => checked(name, constants.files[name])));
  const images = Object.fromEntries(MODEL_IMAGES.map((name, index) => [name, contents[index]!]));
  return { model: openModel(constants, images), network: contents.at(-1)! };
}

async function checked(name: string, digest: string | undefined): Promise<Uint8Array<ArrayBuffer>> {
  const content = await fetched(name);
  if (!isSecureContext) return content;
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const hex = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex === digest) return content;
  throw new InputError(`${name}: required the file that model.json names; received another; reload the page`);
}

async function fetched(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(`model/${name}`);
  if (response.ok) return new Uint8Array(await response.arrayBuffer());
  throw new InputError(
    `${name}: required a file of the model; received status ${response.status}; build the page again`,
  );
}
