/** The answer on one picture: figures, sections with the map, slices, regions and checks. */

import { colourOf } from "./colours";
import { figure, percent, signed } from "./dom";
import type { ModelInfo } from "./model-info";
import { paintSection, type Axis, type Point, type Scene } from "./sections";
import type { Shown } from "./state";
import { LEAKY } from "./verdict";

const WIDTH = 1200;
const HEIGHT = 1180;
const MARGIN = 48;
const INK = "#17212b";
const QUIET = "#566573";
const AD = "#b4530a";
const CN = "#1c5f99";
const FONT = "system-ui, sans-serif";
const REGIONS = 12;

export async function summaryPicture(shown: Shown, scene: Scene, at: Point, model: ModelInfo): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const context = canvas.getContext("2d")!;
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, WIDTH, HEIGHT);
  drawHead(context, shown);
  drawSections(context, scene, at);
  drawSlices(context, shown);
  drawRegions(context, shown);
  drawChecks(context, shown, model);
  write(context, "Research use only, not for diagnosis.", MARGIN, HEIGHT - 32, 16, INK, "600");
  const source = `${model.name} ${model.adpet_version}, lineage ${model.lineage.id}`;
  write(context, source, WIDTH - MARGIN, HEIGHT - 32, 14, QUIET, "400", "right");
  return new Promise((resolve, reject) =>
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("no picture could be made"))),
      "image/png",
    ),
  );
}

function drawHead(context: CanvasRenderingContext2D, { name, answer }: Shown): void {
  const above = answer!.probability_of_ad >= answer!.threshold;
  write(context, percent(answer!.probability_of_ad), MARGIN, 96, 64, above ? AD : CN, "650");
  const figure = context.measureText(percent(answer!.probability_of_ad)).width;
  write(context, "probability of AD", MARGIN + figure + 16, 96, 24, INK);
  write(context, name, WIDTH - MARGIN, 72, 18, INK, "600", "right", 560);
  write(context, `threshold ${percent(answer!.threshold)}`, WIDTH - MARGIN, 96, 16, QUIET, "400", "right");
  write(context, answer!.meaning, MARGIN, 130, 16, QUIET, "400", "left", WIDTH - 2 * MARGIN);
  if (answer!.leaky) {
    write(context, LEAKY, MARGIN, 150, 16, AD, "600");
  }
}

function drawSections(context: CanvasRenderingContext2D, scene: Scene, at: Point): void {
  const width = (WIDTH - 2 * MARGIN - 32) / 3;
  const height = 340;
  ([0, 1, 2] as Axis[]).forEach((axis, column) => {
    const left = MARGIN + column * (width + 16);
    const top = 156;
    context.fillStyle = "#0b0d10";
    context.fillRect(left, top, width, height);
    const section = document.createElement("canvas");
    paintSection(section, scene, axis, at, 1);
    const scale = Math.min(width / section.width, height / section.height);
    const [w, h] = [section.width * scale, section.height * scale];
    context.drawImage(section, left + (width - w) / 2, top + (height - h) / 2, w, h);
    const [first, last] = axis === 0 ? ["P", "A"] : ["L", "R"];
    write(context, first!, left + 10, top + height / 2, 16, "#ffffff", "600");
    write(context, last!, left + width - 10, top + height / 2, 16, "#ffffff", "600", "right");
    write(context, `${"xyz"[axis]} = ${signed(at[axis], 0)} mm`, left + 10, top + height - 12, 14, "#ffffff");
  });
  drawLegend(context, scene, 516);
}

function drawLegend(context: CanvasRenderingContext2D, { overlay }: Scene, top: number): void {
  for (let x = 0; x < 200; x++) {
    context.fillStyle = `rgb(${colourOf(overlay.direction, x / 199).join(" ")})`;
    context.fillRect(MARGIN + x, top, 1, 10);
  }
  const text = `evidence for ${overlay.direction}, from 0 to the map's largest value; shown from ${percent(overlay.threshold)} of it`;
  write(context, text, MARGIN + 212, top + 10, 14, QUIET);
}

function drawSlices(context: CanvasRenderingContext2D, { answer }: Shown): void {
  const [left, top, width, height] = [MARGIN + 44, 590, WIDTH - 2 * MARGIN - 44, 150];
  write(
    context,
    "Probability of AD, coronal slices from back to front (MNI y in mm)",
    MARGIN,
    570,
    16,
    INK,
    "600",
  );
  const slices = answer!.slices;
  const step = width / slices.length;
  const y = (share: number) => top + (1 - share) * height;
  for (const share of [0, 0.5, 1]) {
    line(context, left, y(share), left + width, y(share), "#dfe4e8", 1);
    write(context, `${100 * share}%`, left - 8, y(share) + 5, 13, QUIET, "400", "right");
  }
  slices.forEach((slice, index) => {
    const x = left + (index + 0.5) * step;
    const colour = slice.probability_of_ad >= answer!.threshold ? AD : CN;
    line(context, x, y(0), x, y(slice.probability_of_ad), colour, 3);
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y(slice.probability_of_ad), 6, 0, 2 * Math.PI);
    context.fill();
    write(context, signed(slice.y_mm, 0), x, top + height + 20, 13, QUIET, "400", "center");
  });
  context.setLineDash([6, 4]);
  line(context, left, y(answer!.threshold), left + width, y(answer!.threshold), INK, 1.5);
  context.setLineDash([]);
}

function drawRegions(context: CanvasRenderingContext2D, { answer }: Shown): void {
  const top = 812;
  write(context, "Regions with the lowest uptake against CN", MARGIN, top, 16, INK, "600");
  const columns = [MARGIN + 330, MARGIN + 420, MARGIN + 530];
  ["uptake", "z", "share of map"].forEach((text, n) =>
    write(context, text, columns[n]!, top + 24, 13, QUIET, "400", "right"),
  );
  const lowest = [...answer!.regions].sort((a, b) => a.z - b.z).slice(0, REGIONS);
  lowest.forEach((region, row) => {
    const y = top + 46 + 22 * row;
    write(
      context,
      `${region.name}${region.ad_pattern ? "  (AD pattern)" : ""}`,
      MARGIN,
      y,
      14,
      INK,
      "400",
      "left",
      280,
    );
    const cells = [region.uptake.toFixed(2), signed(region.z, 1), percent(region.cam_share)];
    cells.forEach((text, n) => write(context, text, columns[n]!, y, 14, INK, "400", "right"));
  });
}

function drawChecks(context: CanvasRenderingContext2D, { checks }: Shown, model: ModelInfo): void {
  const [left, top] = [650, 812];
  write(context, "Is this scan like the training scans?", left, top, 16, INK, "600");
  checks.forEach(({ name, value, verdict }, row) => {
    const y = top + 30 + 26 * row;
    const text = model.quality.find((one) => one.name === name)?.text ?? name;
    write(context, verdict === "ok" ? "✓" : "!", left, y, 15, verdict === "ok" ? "#20703f" : AD, "700");
    write(context, text, left + 22, y, 14, INK, "400", "left", WIDTH - MARGIN - left - 84);
    write(context, figure(value), WIDTH - MARGIN, y, 14, QUIET, "400", "right");
  });
}

function line(
  context: CanvasRenderingContext2D,
  x1: number,
  y1: number,
  x2: number,
  y2: number,
  colour: string,
  width: number,
) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

function write(
  context: CanvasRenderingContext2D,
  text: string,
  x: number,
  y: number,
  size: number,
  colour: string,
  weight = "400",
  align: CanvasTextAlign = "left",
  widest = Infinity,
): void {
  context.font = `${weight} ${size}px ${FONT}`;
  context.fillStyle = colour;
  context.textAlign = align;
  context.fillText(text, x, y, Number.isFinite(widest) ? widest : undefined);
}
