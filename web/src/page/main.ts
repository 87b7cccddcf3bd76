/** The page: takes a scan, hands it to the worker, and shows what comes back. */

import type { ModelDocument } from "../model.generated";
import { App } from "./app";
import { offerExamples, offerFiles } from "./choosing";
import { byId, fetched } from "./dom";
import { workOffline } from "./offline";

try {
  const model = (await (await fetched("model/model.json")).json()) as ModelDocument;
  byId("about").textContent = `Model ${model.name} ${model.adpet_version}, lineage ${model.lineage.id}.`;
  const app = new App(model);
  offerFiles((...given) => void app.take(...given));
  await offerExamples((name, content) => void app.take(name, content));
  document.body.dataset["ready"] = "true";
} catch (error) {
  byId("problem").textContent = error instanceof Error ? error.message : String(error);
  byId("problem").hidden = false;
}
workOffline(byId("offline"));
