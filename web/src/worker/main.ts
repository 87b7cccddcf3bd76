/** The worker: opens the model once, then answers for one scan at a time; a later scan ends an earlier one. */

import { InputError } from "../imaging";
import type { Finding, Request } from "../messages";
import { answerFor } from "./answering";
import { fromDicom, isDicom, isZip } from "./dicom";
import { fetchModel } from "./files";
import { Network } from "./network";

const scope = self as unknown as DedicatedWorkerGlobalScope;

let opened: ReturnType<typeof open> | undefined;
let latest = 0;

scope.onmessage = (event: MessageEvent<Request>) => {
  latest = event.data.scan;
  void answer(event.data);
};

async function answer({ scan, name, files, ...about }: Request): Promise<void> {
  const send = (finding: Finding, transfer: Transferable[] = []) =>
    scope.postMessage({ ...finding, scan }, transfer);
  try {
    send({ kind: "progress", step: "model", done: 0 });
    opened ??= open();
    const given = files.map((file) => new Uint8Array(file));
    const isOther = given.length > 1 || given.some((bytes) => isZip(bytes) || isDicom(bytes));
    const read = isOther ? await fromDicom(given, name) : { bytes: given[0]!, ...about };
    const named = { name: isOther ? `${name}.nii` : name, ...(read.sidecar && { sidecar: read.sidecar }) };
    await answerFor(named, read.bytes, await opened, send, () => latest !== scan);
  } catch (error) {
    send({ kind: "refused", sentence: sentenceOf(error, name) });
  }
}

async function open() {
  try {
    const { model, network } = await fetchModel();
    return { model, network: await Network.open(network) };
  } catch (error) {
    // The next scan tries again.
    opened = undefined;
    throw error;
  }
}

function sentenceOf(error: unknown, name: string): string {
  if (error instanceof InputError) return error.message;
  console.error(error);
  const reason = error instanceof Error ? error.message : String(error);
  return `${name}: cannot be answered for (${reason}): reload the page and try again`;
}
