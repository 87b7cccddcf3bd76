/** What happens when: a scan is taken, the worker reports, the user moves a control. */

import { boundsOf, eachAxis, InputError, type Sidecar, type Vector } from "../imaging";
import type { Comparison, Finding, MapName, Of, Report, Request, Step } from "../messages";
import type { ModelDocument } from "../model.generated";
import { contributionChart } from "./chart";
import { Controls } from "./controls";
import { byId, element, percent, save } from "./dom";
import { type Plate, showPlates } from "./plates";
import { fromStandard, sceneOf, shownMap, toStandard, windowOf, type Shown } from "./state";
import { Strip } from "./strip";
import { summaryPicture } from "./summary";
import { interpretationOf, showAnswer, showChecks, showRegions, unusualIn } from "./tables";
import { StagedViewer } from "./viewer";
import { showVisits } from "./visits";

/** Posterior cingulate, where AD lowers uptake first. */
const START: Vector = [6, -52, 26];
/** Each step's words, and the shares of the bar that it begins and ends at. */
const STEPS: Record<Step, readonly [string, number, number]> = {
  model: ["Opening the model", 0, 0.05],
  reading: ["Reading the scan", 0.05, 0.1],
  aligning: ["Aligning it to MNI space", 0.1, 0.75],
  turning: ["Turning it by quarter turns", 0.75, 1],
  scoring: ["Scoring coronal slices", 0.75, 1],
};

type State = "working" | "answered" | "refused";

export class App {
  private readonly worker = new Worker("worker.js", { type: "module" });
  private readonly controls: Controls;
  private readonly strip: Strip;
  private readonly viewer = new StagedViewer(byId("viewer"), (point) => this.follow(point));
  private shown: Shown = begun("");
  /** The visit that the next one is compared with. */
  private first: Shown | undefined;
  private frame = 0;
  private scan = 0;

  constructor(private readonly model: ModelDocument) {
    this.strip = new Strip(byId("strip"), (yMm) => this.moveToSlice(yMm), model.maps["cam"]!.limit);
    this.controls = new Controls(model, {
      restyle: () => this.restyle(),
      map: () => this.draw(),
      age: () => this.askAgain(),
      move: (point) => this.move(point),
      space: () => this.changeSpace(),
    });
    const on: { [Kind in Finding["kind"]]: (found: Of<Kind>) => void } = {
      progress: (found) => this.progress(found),
      original: (found) => this.showOriginal(found),
      standard: (found) => this.showStandard(found),
      slices: (found) => this.showSlices(found),
      slice: (found) => this.showSlice(found),
      answer: (found) => this.showAnswer(found),
      compared: (found) => this.showComparison(found),
      refused: ({ sentence }) => this.refuse(sentence),
    };
    this.worker.onmessage = ({ data }: MessageEvent<Report>) => {
      if (data.scan === this.scan) on[data.kind](data as never);
    };
    this.worker.onerror = () => this.refuse("The page's worker could not be started: reload the page");
    byId("save-map").addEventListener("click", () => this.saveMap());
    byId("save-page").addEventListener("click", () => void this.saveSummary());
    byId("print").addEventListener("click", () => print());
    byId("compare").addEventListener("click", () => this.keepFirst());
  }

  async take(name: string, content: Promise<ArrayBuffer[]>, sidecar?: Promise<Sidecar>): Promise<void> {
    const scan = ++this.scan;
    this.begin(name);
    try {
      const [files, about] = await Promise.all([content, sidecar]);
      const file = { name, files, ...(about && { sidecar: about }) };
      if (scan === this.scan) this.ask({ scan, age: null, file }, files);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const said = error instanceof InputError ? reason : `cannot be read (${reason})`;
      if (scan === this.scan) this.refuse(`${name}: ${said}`);
    }
  }

  private ask(request: Request, transfer: Transferable[] = []): void {
    this.worker.postMessage(request, transfer);
  }

  private askAgain(): void {
    if (this.shown.answer) this.ask({ scan: this.scan, age: this.controls.years });
  }

  private begin(name: string): void {
    this.shown = begun(name);
    this.controls.reset();
    byId("problem").hidden = true;
    byId("work").classList.add("away");
    byId("scan-name").textContent = name;
    // The name of a saved print-out.
    document.title = `adpet: ${name}`;
    for (const id of ["strip", "regions", "checks", "plates", "visits"]) sectionOf(id).hidden = true;
    this.wait("The answer comes when all slices are scored.");
    byId("chart").replaceChildren();
    this.setState("working");
    this.progress({ step: "model", done: 0 });
  }

  private progress({ step, done }: Omit<Of<"progress">, "kind">): void {
    const [text, from, to] = STEPS[step];
    byId("progress").hidden = false;
    byId<HTMLProgressElement>("progress-bar").value = from + done * (to - from);
    this.say(`${text} …`);
  }

  /** A live region reads each change aloud. */
  private say(sentence: string): void {
    if (byId("progress-text").textContent !== sentence) byId("progress-text").textContent = sentence;
  }

  private showOriginal({ picture }: Of<"original">): void {
    Object.assign(this.shown, { original: picture, originalWindow: windowOf(picture.data) });
    byId("work").classList.remove("away");
    this.spanSpace();
    this.draw();
  }

  private showStandard({ picture, matrix, checks }: Of<"standard">): void {
    Object.assign(this.shown, { standard: picture, matrix, checks });
    sectionOf("checks").hidden = false;
    showChecks(byId("checks"), checks, this.model.quality);
    this.spanSpace();
    this.draw();
  }

  private showSlices(slices: Of<"slices">): void {
    this.shown.slices = slices;
    sectionOf("strip").hidden = false;
    this.strip.begin(slices, this.camOverlay);
  }

  private showSlice(slice: Of<"slice">): void {
    const { yMm } = this.shown.slices!;
    this.strip.add(slice, this.camOverlay);
    this.progress({ step: "scoring", done: (slice.index + 1) / yMm.length });
  }

  private showAnswer({ answer, cam, z }: Of<"answer">): void {
    this.shown.answer = answer;
    this.shown.maps.cam = shownMap("cam", cam, answer.matrix, this.model);
    showAnswer(byId("answer"), answer, this.model);
    byId("chart").innerHTML = contributionChart(answer.slices);
    this.strip.answer(answer.slices);
    this.showComparison({ comparison: answer, z });
    this.follow(this.controls.point);
    this.setState("answered");
    this.say(`Answered: ${percent(answer.probability_of_ad)} probability of AD. ${interpretationOf(answer)}`);
    this.draw();
  }

  private showComparison({ comparison, z }: { comparison: Comparison } & Pick<Of<"answer">, "z">): void {
    const { age, compared_at_age, unusual, regions } = comparison;
    const answer = Object.assign(this.shown.answer!, { age, compared_at_age, unusual, regions });
    this.shown.maps.z = shownMap("z", z, answer.matrix, this.model);
    byId("unusual").textContent = unusualIn(answer);
    showRegions(byId<HTMLTableElement>("regions"), regions);
    sectionOf("regions").hidden = false;
    if (this.first && this.first.answer !== answer) showVisits(byId("visits"), this.first.answer!, answer);
    this.draw();
  }

  private refuse(sentence: string): void {
    byId("problem").textContent = sentence;
    byId("problem").hidden = false;
    byId("progress").hidden = true;
    this.say("");
    this.wait("There is no answer for this scan; the reason stands above.");
    this.setState("refused");
    this.draw();
  }

  private wait(sentence: string): void {
    byId("answer").replaceChildren(element("p", "waiting", sentence));
  }

  private setState(state: State): void {
    document.body.dataset["state"] = state;
    byId("work").ariaBusy = String(state === "working");
    for (const id of ["save-map", "save-page", "print"]) {
      byId<HTMLButtonElement>(id).disabled = state !== "answered";
    }
    byId<HTMLButtonElement>("compare").disabled = state !== "answered" && !this.first;
  }

  /** The strip shows the CAM alone. */
  private get camOverlay() {
    return { ...this.controls.overlay, map: "cam" as const };
  }

  private sceneOf(shown = this.shown) {
    return sceneOf(shown, this.controls.overlay, this.model.slices.window);
  }

  private draw(): void {
    const scene = this.sceneOf();
    const settled = document.body.dataset["state"] !== "working";
    if (scene) void this.viewer.show(scene, this.controls.point, settled);
    this.drawPlates();
  }

  /** Keep this visit next to the one that is chosen next, or keep it no longer. */
  private keepFirst(): void {
    const { original: _original, slices: _slices, ...first } = this.shown;
    this.first = this.first ? undefined : first;
    byId("compare").ariaPressed = String(this.first !== undefined);
    this.setState(document.body.dataset["state"] as State);
    this.drawPlates();
    if (!this.first) return this.say("No visits are compared");
    this.say(`Choose the other visit of this person, to be compared with ${first.name}`);
    byId("file").focus();
  }

  private drawPlates(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      const { shown, first, controls, model } = this;
      const isCompared = Boolean(first && shown.answer && shown.answer !== first.answer);
      sectionOf("plates").hidden = !shown.answer;
      sectionOf("visits").hidden = !isCompared;
      if (!shown.answer) return;
      const at = toStandard(shown, controls.point);
      const plate = (of: Shown, map: MapName, title: string): Plate => ({
        title,
        answer: of.answer!,
        scene: sceneOf({ ...of, space: "standard" }, controls.overlayOf(map), model.slices.window)!,
      });
      const both = (["cam", "z"] as const).map((map) => plate(shown, map, model.maps[map]!.title));
      showPlates(byId("plates"), both, at, model);
      if (!isCompared) return;
      const visits = [plate(first!, "z", "First visit"), plate(shown, "z", "Second visit")];
      showPlates(byId("visit-plates"), visits, at, model);
    });
  }

  private changeSpace(): void {
    this.shown.space = this.controls.space;
    this.spanSpace();
    this.draw();
  }

  private spanSpace(): void {
    const picture = this.sceneOf()?.base;
    if (!picture) return;
    const [low, high] = boundsOf(picture);
    const middle = eachAxis((axis) => (low[axis]! + high[axis]!) / 2);
    this.controls.span(picture, this.shown.matrix ? fromStandard(this.shown, START) : middle);
  }

  private restyle(): void {
    const scene = this.sceneOf();
    if (this.controls.map === "cam") this.strip.restyle(this.camOverlay);
    if (scene) this.viewer.restyle(scene);
    this.drawPlates();
  }

  private move(point: Vector): void {
    this.follow(point);
    this.viewer.moveTo(point);
  }

  private follow(point: Vector): void {
    this.controls.point = point;
    this.strip.mark(toStandard(this.shown, point)[1]);
    this.drawPlates();
  }

  private moveToSlice(yMm: number): void {
    const [x, , z] = toStandard(this.shown, this.controls.point);
    this.move(fromStandard(this.shown, [x, yMm, z]));
  }

  private saveMap(): void {
    const { map } = this.controls;
    save(this.shown.maps[map]!.file, `${this.stem}_${map}.nii`, "application/octet-stream");
  }

  private async saveSummary(): Promise<void> {
    const { shown, controls, model, stem } = this;
    const scene = this.sceneOf({ ...shown, space: "standard" })!;
    const at = toStandard(shown, controls.point);
    save(await summaryPicture(shown.answer!, scene, at, model), `${stem}_adpet.png`, "image/png");
  }

  private get stem(): string {
    return this.shown.name.replace(/\.nii(\.gz)?$/i, "");
  }
}

function begun(name: string): Shown {
  return { name, space: "standard", checks: [], maps: {} };
}

function sectionOf(id: string): HTMLElement {
  return byId(id).closest("section")!;
}
