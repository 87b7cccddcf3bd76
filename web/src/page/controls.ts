/** The sliders and switches of the viewer. */

import { boundsOf, eachAxis, type Vector, type Volume } from "../imaging";
import type { MapName } from "../messages";
import type { ModelDocument } from "../model.generated";
import { gradient, type Direction, type Overlay } from "./colours";
import { byId, signed } from "./dom";

export type Space = "standard" | "original";

/** What the two directions of a map mean. */
export const SIDES: Record<MapName, Record<Direction, string>> = {
  cam: { AD: "speaks for AD", CN: "speaks for CN" },
  z: { AD: "low uptake", CN: "high uptake" },
};

export class Controls {
  private readonly age = byId<HTMLInputElement>("age");
  private readonly thresholds: Record<MapName, string>;
  private readonly opacity = byId<HTMLInputElement>("opacity");
  private readonly threshold = byId<HTMLInputElement>("threshold");
  private readonly places = ["x", "y", "z"].map((axis) => byId<HTMLInputElement>(axis));

  constructor(
    private readonly model: ModelDocument,
    on: { restyle(): void; move(point: Vector): void; space(): void; map(): void; age(): void },
  ) {
    const usual = (name: MapName) => {
      const { limit, shown_from: least } = model.maps[name]!;
      return String(Math.round((100 * least) / limit));
    };
    this.thresholds = { cam: usual("cam"), z: usual("z") };
    this.threshold.value = this.thresholds[this.map];
    for (const name of ["cam", "z"] as const) {
      byId(`title-${name}`).textContent = model.maps[name]!.title;
    }
    const restyle = () => {
      this.label();
      on.restyle();
    };
    for (const input of [this.opacity, this.threshold]) input.addEventListener("input", restyle);
    byId("direction").addEventListener("change", restyle);
    byId("map").addEventListener("change", () => {
      this.threshold.value = this.thresholds[this.map];
      this.label();
      on.map();
    });
    this.age.addEventListener("change", () => on.age());
    byId("space").addEventListener("change", () => on.space());
    const move = () => {
      this.label();
      on.move(this.point);
    };
    for (const place of this.places) place.addEventListener("input", move);
    this.label();
  }

  get overlay(): Overlay {
    return this.overlayOf(this.map);
  }

  overlayOf(map: MapName): Overlay {
    return {
      map,
      direction: checked("direction") as Direction,
      opacity: Number(this.opacity.value) / 100,
      threshold: Number(this.thresholds[map]) / 100,
    };
  }

  get map(): MapName {
    return checked("map") as MapName;
  }

  /** Years, or null where the field holds no age. */
  get years(): number | null {
    return this.age.value && this.age.validity.valid ? this.age.valueAsNumber : null;
  }

  get space(): Space {
    return checked("space") as Space;
  }

  get point(): Vector {
    return eachAxis((axis) => Number(this.places[axis]!.value));
  }

  set point(point: Vector) {
    this.places.forEach((place, axis) => (place.value = String(Math.round(point[axis]!))));
    this.label();
  }

  span(picture: Volume, point: Vector): void {
    const [low, high] = boundsOf(picture);
    this.places.forEach((place, axis) => {
      place.min = String(Math.ceil(low[axis]!));
      place.max = String(Math.floor(high[axis]!));
    });
    this.point = point;
  }

  reset(): void {
    byId("space").querySelector<HTMLInputElement>("[value=standard]")!.checked = true;
    this.age.value = "";
  }

  private label(): void {
    for (const input of [this.opacity, this.threshold]) {
      byId(`${input.id}-value`).textContent = `${input.value}%`;
    }
    this.thresholds[this.map] = this.threshold.value;
    const { limit, unit } = this.model.maps[this.map]!;
    byId("legend-text").textContent = `${limit} ${unit}`;
    for (const side of ["AD", "CN"] as const) {
      byId(`side-${side}`).textContent = SIDES[this.map][side];
    }
    byId("legend-bar").style.backgroundImage = gradient(this.overlay.direction);
    for (const place of this.places) {
      byId(`${place.id}-value`).textContent = `${signed(Number(place.value), 0)} mm`;
    }
  }
}

function checked(name: string): string {
  return document.querySelector<HTMLInputElement>(`input[name=${name}]:checked`)!.value;
}
