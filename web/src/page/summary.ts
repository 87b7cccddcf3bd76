/** The answer on one picture: figures, sections with the map, slices, regions and checks. */

import type { Vector } from "../imaging";
import type { Answer } from "../messages";
import type { ModelDocument } from "../model.generated";
import { reachOf } from "./chart";
import { colourOf } from "./colours";
import { figure, percent, signed } from "./dom";
import { legendOf } from "./plates";
import { paintSection, sidesOf, type Axis, type Scene } from "./sections";
import { comparedIn, interpretationOf, LEAKY } from "./tables";

const [WIDTH, HEIGHT, MARGIN] = [1200, 1180, 48];
const [INK, QUIET, WHITE] = ["#17212b", "#566573", "#ffffff"];
const [AD, CN, GOOD] = ["#b4530a", "#1c5f99", "#20703f"];
const RIGHT = WIDTH - MARGIN;
const REGIONS = 12;

interface Style {
  size?: number;
  colour?: string;
  weight?: number;
  align?: CanvasTextAlign;
  /** Most pixels of a text: its letters get narrower. */
  widest?: number;
}

export async function summaryPicture(
  answer: Answer,
  scene: Scene,
  at: Vector,
  model: ModelDocument,
): Promise<Blob> {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: WIDTH, height: HEIGHT });
  const sheet = new Sheet(canvas.getContext("2d")!);
  sheet.fill(0, 0, WIDTH, HEIGHT, WHITE);
  drawHead(sheet, answer);
  ([0, 1, 2] as const).forEach((axis) => drawSection(sheet, scene, axis, at));
  drawLegend(sheet, scene, model);
  drawSlices(sheet, answer);
  drawRegions(sheet, answer);
  drawChecks(sheet, answer, model);
  sheet.head("Research use only, not for diagnosis.", MARGIN, HEIGHT - 32);
  const source = `${model.name} ${model.adpet_version}, lineage ${model.lineage.id}`;
  sheet.write(source, RIGHT, HEIGHT - 32, { colour: QUIET, align: "right" });
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("no picture could be made");
  return blob;
}

class Sheet {
  constructor(readonly context: CanvasRenderingContext2D) {}

  write(text: string, x: number, y: number, style: Style = {}): number {
    const { size = 14, colour = INK, weight = 400, align = "left", widest } = style;
    this.context.font = `${weight} ${size}px system-ui, sans-serif`;
    this.context.fillStyle = colour;
    this.context.textAlign = align;
    this.context.fillText(text, x, y, widest);
    return this.context.measureText(text).width;
  }

  head(text: string, x: number, y: number, style: Style = {}): void {
    this.write(text, x, y, { size: 16, weight: 600, ...style });
  }

  fill(x: number, y: number, width: number, height: number, colour: string): void {
    this.context.fillStyle = colour;
    this.context.fillRect(x, y, width, height);
  }
}

function drawHead(sheet: Sheet, answer: Answer): void {
  const { probability_of_ad: p, threshold } = answer;
  const colour = p >= threshold ? AD : CN;
  const width = sheet.write(percent(p), MARGIN, 96, { size: 64, colour, weight: 650 });
  sheet.write("probability of AD", MARGIN + width + 16, 96, { size: 24 });
  sheet.head(answer.scan, RIGHT, 72, { size: 18, align: "right", widest: 560 });
  sheet.write(`threshold ${percent(threshold)}`, RIGHT, 96, { size: 16, colour: QUIET, align: "right" });
  sheet.write(answer.meaning, MARGIN, 130, { size: 16, colour: QUIET, widest: RIGHT - MARGIN });
  sheet.write(interpretationOf(answer), MARGIN, 149, { size: 16, colour: QUIET });
  if (answer.leaky) sheet.head(LEAKY, RIGHT, 149, { colour: AD, align: "right" });
}

function drawSection(sheet: Sheet, scene: Scene, axis: Axis, at: Vector): void {
  const [width, height, top] = [(RIGHT - MARGIN - 32) / 3, 340, 156];
  const left = MARGIN + axis * (width + 16);
  sheet.fill(left, top, width, height, "#0b0d10");
  const section = document.createElement("canvas");
  paintSection(section, scene, axis, at, 1);
  const scale = Math.min(width / section.width, height / section.height);
  const [w, h] = [section.width * scale, section.height * scale];
  sheet.context.drawImage(section, left + (width - w) / 2, top + (height - h) / 2, w, h);
  const [first, last] = sidesOf(axis);
  sheet.head(first, left + 10, top + height / 2, { colour: WHITE });
  sheet.head(last, left + width - 10, top + height / 2, { colour: WHITE, align: "right" });
  const place = `${"xyz"[axis]} = ${signed(at[axis], 0)} mm`;
  sheet.write(place, left + 10, top + height - 12, { colour: WHITE });
}

function drawLegend(sheet: Sheet, { overlay }: Scene, model: ModelDocument): void {
  for (let x = 0; x < 200; x++) {
    sheet.fill(MARGIN + x, 516, 1, 10, `rgb(${colourOf(overlay.direction, x / 199).join(" ")})`);
  }
  const text = `${model.maps[overlay.map]!.title}: ${legendOf(overlay, model)}`;
  sheet.write(text, MARGIN + 212, 526, { colour: QUIET });
}

function drawSlices(sheet: Sheet, { slices }: Answer): void {
  const [left, middle, height] = [MARGIN + 44, 665, 75];
  const reach = reachOf(slices);
  const y = (value: number) => middle - (value / reach) * height;
  sheet.head("What each coronal slice adds to the log-odds of AD, back to front (MNI y in mm)", MARGIN, 570);
  for (const value of [-reach, 0, reach]) {
    sheet.fill(left, y(value), RIGHT - left, 1, "#dfe4e8");
    const style = { size: 13, colour: QUIET, align: "right" } as const;
    sheet.write(signed(value, value ? 1 : 0), left - 8, y(value) + 5, style);
  }
  slices.forEach(({ contribution, y_mm: yMm }, index) => {
    const x = left + ((index + 0.5) * (RIGHT - left)) / slices.length;
    const [from, to] = [y(0), y(contribution)];
    sheet.fill(x - 1.5, Math.min(from, to), 3, Math.abs(from - to), contribution > 0 ? AD : CN);
    sheet.context.beginPath();
    sheet.context.arc(x, to, 6, 0, 2 * Math.PI);
    sheet.context.fill();
    sheet.write(signed(yMm, 0), x, middle + height + 20, { size: 13, colour: QUIET, align: "center" });
  });
}

function drawRegions(sheet: Sheet, answer: Answer): void {
  const { regions } = answer;
  const columns = [378, 468, 578];
  sheet.write(`compared ${comparedIn(answer)}`, MARGIN, 832, { size: 13, colour: QUIET, widest: 250 });
  sheet.head("Regions with the lowest uptake against CN", MARGIN, 812);
  ["uptake", "z", "share of CAM"].forEach((text, n) =>
    sheet.write(text, columns[n]!, 836, { size: 13, colour: QUIET, align: "right" }),
  );
  const lowest = [...regions].sort((a, b) => a.z - b.z).slice(0, REGIONS);
  lowest.forEach(({ name, uptake, z, cam_share, ad_pattern }, row) => {
    const y = 858 + 22 * row;
    sheet.write(`${name}${ad_pattern ? "  (AD pattern)" : ""}`, MARGIN, y, { widest: 280 });
    [uptake.toFixed(2), signed(z, 1), percent(cam_share)].forEach((text, n) =>
      sheet.write(text, columns[n]!, y, { align: "right" }),
    );
  });
}

function drawChecks(sheet: Sheet, { checks }: Answer, { quality }: ModelDocument): void {
  const left = 650;
  sheet.head("Is this scan like the training scans?", left, 812);
  checks.forEach(({ name, value, verdict }, row) => {
    const y = 842 + 26 * row;
    const [mark, colour] = verdict === "ok" ? ["✓", GOOD] : ["!", AD];
    sheet.write(mark!, left, y, { size: 15, colour: colour!, weight: 700 });
    const text = quality.find((limit) => limit.name === name)?.text ?? name;
    sheet.write(text, left + 22, y, { widest: RIGHT - left - 84 });
    sheet.write(figure(value), RIGHT, y, { colour: QUIET, align: "right" });
  });
}
