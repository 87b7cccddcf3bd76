/** The sliders and switches of the viewer. */

import { boundsOf, eachAxis, type Vector, type Volume } from "../imaging";
import { gradient, type Direction, type Overlay } from "./colours";
import { byId, signed } from "./dom";

export type Space = "standard" | "original";

export class Controls {
  private readonly opacity = byId<HTMLInputElement>("opacity");
  private readonly threshold = byId<HTMLInputElement>("threshold");
  private readonly places = ["x", "y", "z"].map((axis) => byId<HTMLInputElement>(axis));

  constructor(on: { restyle(): void; move(point: Vector): void; space(): void }) {
    const restyle = () => {
      this.label();
      on.restyle();
    };
    for (const input of [this.opacity, this.threshold]) input.addEventListener("input", restyle);
    byId("direction").addEventListener("change", restyle);
    byId("space").addEventListener("change", () => on.space());
    const move = () => {
      this.label();
      on.move(this.point);
    };
    for (const place of this.places) place.addEventListener("input", move);
    this.label();
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
  }

  private label(): void {
    for (const input of [this.opacity, this.threshold]) {
      byId(`${input.id}-value`).textContent = `${input.value}%`;
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
