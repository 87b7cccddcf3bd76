/** What happens when: a scan is taken, the worker reports, the user moves a control. */

import type { Report, Request, Step } from "../messages";
import { probabilityChart } from "./chart";
import { Controls } from "./controls";
import { byId, percent } from "./dom";
import type { ModelInfo } from "./model-info";
import { save, stemOf } from "./saving";
import { middleOf, type Point } from "./sections";
import { begun, fromStandard, sceneOf, toStandard, windowOf, type Shown } from "./state";
import { Strip } from "./strip";
import { summaryPicture } from "./summary";
import { showChecks, showRegions } from "./tables";
import { showAnswer, showWaiting } from "./verdict";
import { StagedViewer } from "./viewer";

/** Where the posterior cingulate lies, which AD takes uptake from first. */
const START: Point = [6, -52, 26];
/** Each step's words, and the shares of the bar that it begins and ends at. */
const STEPS: Record<Step, readonly [string, number, number]> = {
  model: ["Opening the model", 0, 0.05],
  reading: ["Reading the scan", 0.05, 0.1],
  aligning: ["Aligning it to MNI space", 0.1, 0.75],
  scoring: ["Scoring coronal slices", 0.75, 1],
};

type Of<Kind extends Report["kind"]> = Extract<Report, { kind: Kind }>;

export class App {
  private readonly worker = new Worker("worker.js", { type: "module" });
  private readonly controls: Controls;
  private readonly strip = new Strip(byId("strip"), (yMm) => this.moveToSlice(yMm));
  private readonly viewer = new StagedViewer(byId("viewer"), (point) => this.follow(point));
  private shown: Shown = begun("");
  private scan = 0;

  constructor(private readonly model: ModelInfo) {
    this.controls = new Controls({
      restyle: () => this.restyle(),
      move: (point) => this.move(point),
      space: () => void this.changeSpace(),
    });
    this.worker.onmessage = (event: MessageEvent<Report>) => this.hear(event.data);
    this.worker.onerror = () => this.refuse("The page's worker could not be started: reload the page");
    byId("save-cam").addEventListener("click", () => this.saveCam());
    byId("save-page").addEventListener("click", () => void this.saveSummary());
  }

  async take(name: string, content: Promise<ArrayBuffer>): Promise<void> {
    const scan = ++this.scan;
    this.begin(name);
    try {
      const bytes = await content;
      if (scan === this.scan) {
        this.worker.postMessage({ scan, name, bytes } satisfies Request, [bytes]);
      }
    } catch (error) {
      if (scan === this.scan) {
        this.refuse(`${name}: cannot be read (${error instanceof Error ? error.message : String(error)})`);
      }
    }
  }

  private begin(name: string): void {
    this.shown = begun(name);
    this.controls.reset();
    this.strip.clear();
    byId("problem").hidden = true;
    byId("work").classList.add("away");
    for (const id of ["save-cam", "save-page"]) {
      byId<HTMLButtonElement>(id).disabled = true;
    }
    byId("scan-name").textContent = name;
    byId("regions").closest("section")!.hidden = true;
    byId("checks").closest("section")!.hidden = true;
    byId("strip").closest("section")!.hidden = true;
    showWaiting(byId("answer"), "The answer comes when all slices are scored.");
    byId("chart").replaceChildren();
    this.setState("working");
    this.progress("model", 0);
  }

  private hear(report: Report): void {
    if (report.scan !== this.scan) {
      return;
    }
    switch (report.kind) {
      case "progress":
        return this.progress(report.step, report.done);
      case "original":
        return this.showOriginal(report);
      case "standard":
        return this.showStandard(report);
      case "slices":
        return this.showSlices(report);
      case "slice":
        return this.showSlice(report);
      case "answer":
        return this.showAnswer(report);
      case "refused":
        return this.refuse(report.sentence);
    }
  }

  private progress(step: Step, done: number): void {
    const [text, from, to] = STEPS[step];
    byId("progress").hidden = false;
    byId<HTMLProgressElement>("progress-bar").value = from + done * (to - from);
    const sentence = `${text} …`;
    // Said once a step: a live region reads each change aloud.
    if (byId("progress-text").textContent !== sentence) {
      byId("progress-text").textContent = sentence;
    }
  }

  private showOriginal({ picture }: Of<"original">): void {
    this.shown.original = picture;
    this.shown.originalWindow = windowOf(picture.data);
    byId("work").classList.remove("away");
    this.controls.span(picture, middleOf(picture));
    void this.draw();
  }

  private showStandard({ picture, matrix, checks }: Of<"standard">): void {
    Object.assign(this.shown, { standard: picture, matrix, checks });
    byId("checks").closest("section")!.hidden = false;
    showChecks(byId("checks"), checks, this.model.quality);
    this.spanSpace();
    void this.draw();
  }

  private showSlices(report: Of<"slices">): void {
    this.shown.slices = report;
    byId("strip").closest("section")!.hidden = false;
    this.strip.begin(report, this.controls.overlay);
    this.drawChart();
  }

  private showSlice(report: Of<"slice">): void {
    const yMm = this.shown.slices!.yMm;
    this.shown.scored.push({ y_mm: yMm[report.index]!, probability_of_ad: report.probability });
    this.strip.add(report, this.controls.overlay, this.model.threshold);
    this.drawChart();
    this.progress("scoring", (report.index + 1) / yMm.length);
  }

  private showAnswer({ answer, cam, camMax, camFile }: Of<"answer">): void {
    Object.assign(this.shown, { answer, cam: { picture: cam, max: camMax }, camFile });
    showAnswer(byId("answer"), answer, this.model);
    showRegions(byId<HTMLTableElement>("regions"), answer.regions);
    byId("regions").closest("section")!.hidden = false;
    byId<HTMLButtonElement>("save-cam").disabled = false;
    byId<HTMLButtonElement>("save-page").disabled = false;
    this.strip.restyle(this.controls.overlay);
    this.follow(this.controls.point);
    this.setState("answered");
    byId("progress-text").textContent = `Answered: ${percent(answer.probability_of_ad)} probability of AD`;
    void this.draw();
  }

  private refuse(sentence: string): void {
    byId("problem").textContent = sentence;
    byId("problem").hidden = false;
    byId("progress").hidden = true;
    byId("progress-text").textContent = "";
    showWaiting(byId("answer"), "There is no answer for this scan; the reason stands above.");
    this.setState("refused");
    void this.draw();
  }

  private setState(state: "working" | "answered" | "refused"): void {
    document.body.dataset["state"] = state;
    byId("work").setAttribute("aria-busy", String(state === "working"));
  }

  private drawChart(): void {
    const { scored, slices } = this.shown;
    byId("chart").replaceChildren(probabilityChart(scored, slices!.yMm, this.model.threshold));
  }

  private get scene() {
    return sceneOf(this.shown, this.controls.overlay, this.model.slices.window);
  }

  private async draw(): Promise<void> {
    const { scene } = this;
    if (scene) {
      const settled = document.body.dataset["state"] !== "working";
      await this.viewer.show(scene, this.controls.point, settled);
    }
  }

  private async changeSpace(): Promise<void> {
    this.shown.space = this.controls.space;
    this.spanSpace();
    await this.draw();
  }

  /** Let the sliders span the space that is shown. */
  private spanSpace(): void {
    const { space, original, standard, matrix } = this.shown;
    const picture = space === "standard" ? standard : original;
    if (picture) {
      this.controls.span(picture, matrix ? fromStandard(this.shown, START) : middleOf(picture));
    }
  }

  private restyle(): void {
    const { scene } = this;
    this.strip.restyle(this.controls.overlay);
    if (scene) {
      this.viewer.restyle(scene);
    }
  }

  private move(point: Point): void {
    this.follow(point);
    this.viewer.moveTo(point);
  }

  /** Let sliders and slices say where the viewer is. */
  private follow(point: Point): void {
    this.controls.point = point;
    this.strip.mark(toStandard(this.shown, point)[1]);
  }

  private moveToSlice(yMm: number): void {
    const [x, , z] = toStandard(this.shown, this.controls.point);
    this.move(fromStandard(this.shown, [x, yMm, z]));
  }

  private saveCam(): void {
    save(this.shown.camFile!, `${stemOf(this.shown.name)}_cam.nii`, "application/octet-stream");
  }

  private async saveSummary(): Promise<void> {
    const { shown, controls, model } = this;
    const scene = sceneOf({ ...shown, space: "standard" }, controls.overlay, model.slices.window)!;
    const at = toStandard(shown, controls.point);
    save(await summaryPicture(shown, scene, at, model), `${stemOf(shown.name)}_adpet.png`, "image/png");
  }
}
