/** Let the page work without a server after its first load. */

import { element } from "./dom";

export function workOffline(status: HTMLElement): void {
  if (!("serviceWorker" in navigator)) {
    return;
  }
  const container = navigator.serviceWorker;
  const hadOne = container.controller !== null;
  void container
    .register("sw.js")
    .then((registration) => {
      const offer = () => {
        if (registration.waiting && hadOne) {
          offerNewer(status, registration.waiting);
        }
      };
      offer();
      registration.addEventListener("updatefound", () => {
        registration.installing?.addEventListener("statechange", offer);
      });
      return container.ready;
    })
    .then(() => {
      status.dataset["offline"] = "ready";
      if (!status.hasChildNodes()) {
        status.textContent = "Works offline from now on.";
      }
    })
    .catch((error: unknown) => console.warn(error));
}

function offerNewer(status: HTMLElement, waiting: ServiceWorker): void {
  const button = element("button", { type: "button", class: "link" }, "Load it");
  button.addEventListener("click", () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
    waiting.postMessage("take over");
  });
  status.replaceChildren("A newer version of this page is here. ", button);
}
