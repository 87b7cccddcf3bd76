/** Let the page work without a server after its first load. */

import { element } from "./dom";

export function workOffline(status: HTMLElement): void {
  void keep(status).catch((error: unknown) => console.warn(error));
}

async function keep(status: HTMLElement): Promise<void> {
  // Absent over plain HTTP.
  const container = navigator.serviceWorker as ServiceWorkerContainer | undefined;
  if (!container) return;
  const hadOne = container.controller !== null;
  const registration = await container.register("sw.js");
  const offer = () => {
    if (registration.waiting && hadOne) offerNewer(status, registration.waiting);
  };
  offer();
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", offer);
  });
  await container.ready;
  status.dataset["offline"] = "ready";
  if (!status.hasChildNodes()) status.textContent = "Works offline from now on.";
}

function offerNewer(status: HTMLElement, waiting: ServiceWorker): void {
  const button = element("button", { type: "button", class: "link" }, "Load it");
  button.addEventListener("click", () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
    waiting.postMessage("take over");
  });
  status.replaceChildren("A newer version of this page is here. ", button);
}
