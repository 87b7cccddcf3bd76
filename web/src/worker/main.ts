/** The worker: opens the model once, then answers for one scan at a time; a later scan ends an earlier one. */

import { InputError } from "../imaging";
import type { Finding, Request } from "../messages";
import { answerFor, type Compare } from "./answering";
import { fromDicom, isDicom, isZip } from "./dicom";
import { fetchModel } from "./files";
import { Network } from "./network";

const scope = self as unknown as DedicatedWorkerGlobalScope;

let opened: ReturnType<typeof open> | undefined;
let latest = 0;
let compare: Compare | undefined;

scope.onmessage = (event: MessageEvent<Request>) => {
  latest = event.data.scan;
  void answer(event.data);
};

async function answer({ scan, age, file }: Request): Promise<void> {
  const send = (finding: Finding, transfer: Transferable[] = []) =>
    scope.postMessage({ ...finding, scan }, transfer);
  if (!file) {
    if (compare) send({ kind: "compared", ...compare(age) });
    return;
  }
  try {
    compare = undefined;
    send({ kind: "progress", step: "model", done: 0 });
    opened ??= open();
    const { name, files, ...about } = file;
    const given = files.map((each) => new Uint8Array(each));
    const isOther = given.length > 1 || given.some((bytes) => isZip(bytes) || isDicom(bytes));
    const read = isOther ? await fromDicom(given, name) : { bytes: given[0]!, ...about };
    const named = { name: isOther ? `${name}.nii` : name, ...(read.sidecar && { sidecar: read.sidecar }) };
    const found = await answerFor(
      { ...named, bytes: read.bytes, age },
      await opened,
      send,
      () => latest !== scan,
    );
    if (latest === scan) compare = found;
  } catch (error) {
    send({ kind: "refused", sentence: sentenceOf(error, file.name) });
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
