/** The page: takes a scan, hands it to the worker, and shows what comes back. */

import { App } from "./app";
import { offerExamples, offerFiles } from "./choosing";
import { byId } from "./dom";
import { fetchModelInfo } from "./model-info";
import { workOffline } from "./offline";

try {
  const model = await fetchModelInfo();
  byId("about").textContent = `Model ${model.name} ${model.adpet_version}, lineage ${model.lineage.id}.`;
  const app = new App(model);
  offerFiles((name, content) => void app.take(name, content));
  await offerExamples((name, content) => void app.take(name, content));
  document.body.dataset["ready"] = "true";
} catch (error) {
  const problem = byId("problem");
  problem.textContent = error instanceof Error ? error.message : String(error);
  problem.hidden = false;
}
workOffline(byId("offline"));
