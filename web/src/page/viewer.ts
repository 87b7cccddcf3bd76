/** What shows a volume: NiiVue where there is WebGL2, else three sections on plain canvases. */

import { PlaneViewer } from "./plane-viewer";
import type { Point, Scene } from "./sections";

export interface Viewer {
  /** Show a volume and the map over it; returns when it is drawn. */
  show(scene: Scene): Promise<void>;
  /** Change what is shown of the map. */
  restyle(scene: Scene): void;
  moveTo(point: Point): void;
  /** Is called with the place that the user has moved to, in world mm. */
  onMove(listener: (point: Point) => void): void;
}

export async function openViewer(place: HTMLElement): Promise<Viewer> {
  if (hasWebGL2()) {
    try {
      const { NiivueViewer } = await import("./niivue-viewer");
      return await NiivueViewer.open(place);
    } catch (error) {
      console.warn(error);
    }
  }
  return new PlaneViewer(place);
}

function hasWebGL2(): boolean {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}
