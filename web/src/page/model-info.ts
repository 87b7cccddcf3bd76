/** What the page itself reads of `model.json`; the worker reads the rest. */

export interface CheckInfo {
  name: string;
  text: string;
  low: number;
  high: number;
}

export interface ModelInfo {
  name: string;
  adpet_version: string;
  intended_use: string;
  threshold: number;
  leaky: boolean;
  lineage: { id: string };
  performance: { auc: { value: number; low: number; high: number }; test_subjects: number };
  slices: { window: [number, number] };
  quality: CheckInfo[];
}

export async function fetchModelInfo(): Promise<ModelInfo> {
  return (await fetchJson("model/model.json")) as ModelInfo;
}

export async function fetchJson(address: string): Promise<unknown> {
  const response = await fetch(address);
  if (!response.ok) {
    throw new Error(
      `${address}: required a file of this page; received status ${response.status}; reload the page`,
    );
  }
  return response.json();
}
