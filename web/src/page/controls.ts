/** The sliders and switches beside the viewer. */

import { gradient, type Direction, type Overlay } from "./colours";
import { byId, signed } from "./dom";
import { boundsOf, type Point } from "./sections";
import type { Picture } from "../messages";
import type { Space } from "./state";

const AXES = ["x", "y", "z"] as const;

export interface Listeners {
  restyle(overlay: Overlay): void;
  move(point: Point): void;
  space(space: Space): void;
}

export class Controls {
  private readonly opacity = byId<HTMLInputElement>("opacity");
  private readonly threshold = byId<HTMLInputElement>("threshold");
  private readonly places = AXES.map((axis) => byId<HTMLInputElement>(axis));

  constructor(listeners: Listeners) {
    const restyle = () => {
      this.tell();
      listeners.restyle(this.overlay);
    };
    this.opacity.addEventListener("input", restyle);
    this.threshold.addEventListener("input", restyle);
    byId("direction").addEventListener("change", restyle);
    byId("space").addEventListener("change", () => listeners.space(this.space));
    for (const place of this.places) {
      place.addEventListener("input", () => {
        this.tell();
        listeners.move(this.point);
      });
    }
    this.tell();
  }

  get overlay(): Overlay {
    return {
      direction: checked("direction") as Direction,
      opacity: Number(this.opacity.value) / 100,
      threshold: Number(this.threshold.value) / 100,
    };
  }

  get space(): Space {
    return checked("space") as Space;
  }

  get point(): Point {
    return this.places.map((place) => Number(place.value)) as unknown as Point;
  }

  set point(point: Point) {
    this.places.forEach((place, axis) => {
      place.value = String(Math.round(point[axis]!));
    });
    this.tell();
  }

  /** Let the sliders of the place span a volume; the place stays where it can. */
  span(picture: Picture, point: Point): void {
    const [low, high] = boundsOf(picture);
    this.places.forEach((place, axis) => {
      place.min = String(Math.ceil(low[axis]!));
      place.max = String(Math.floor(high[axis]!));
    });
    this.point = point;
  }

  /** Return to the standard space, for a new scan. */
  reset(): void {
    byId("space").querySelector<HTMLInputElement>("[value=standard]")!.checked = true;
  }

  private tell(): void {
    const { direction, opacity, threshold } = this.overlay;
    byId("opacity-value").textContent = `${Math.round(100 * opacity)}%`;
    byId("threshold-value").textContent = `${Math.round(100 * threshold)}%`;
    byId("legend-bar").style.backgroundImage = gradient(direction);
    this.places.forEach((place, axis) => {
      byId(`${AXES[axis]}-value`).textContent = `${signed(Number(place.value), 0)} mm`;
    });
  }
}

function checked(name: string): string {
  return document.querySelector<HTMLInputElement>(`input[name=${name}]:checked`)!.value;
}
