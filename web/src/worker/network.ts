/** The network on ONNX Runtime, in WebAssembly with one thread, so that no special headers are needed. */

import * as ort from "onnxruntime-web/wasm";

import type { Scored } from "../messages";

const RUNTIME = "ort-wasm-simd-threaded.wasm";

export class Network {
  private constructor(private readonly session: ort.InferenceSession) {}

  static async open(content: Uint8Array): Promise<Network> {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.proxy = false;
    ort.env.wasm.wasmPaths = { wasm: new URL(RUNTIME, self.location.href).href };
    ort.env.logLevel = "error";
    return new Network(await ort.InferenceSession.create(content, { executionProviders: ["wasm"] }));
  }

  async score(slice: Uint8Array, size: number, channels: number): Promise<Scored> {
    const input = new ort.Tensor("uint8", slice, [1, size, size, channels]);
    const { cam, probability, folds } = await this.session.run({ slices: input });
    const [, height, width] = cam!.dims;
    return {
      probability: Number((probability!.data as Float32Array)[0]),
      folds: Array.from((folds?.data ?? []) as Float32Array),
      map: new Float32Array(cam!.data as Float32Array),
      mapShape: [height!, width!],
    };
  }
}
