"""Draw the pictures in docs/: of MLflow's UI from a store that has a challenger, and of the page.

``python benchmarks/screenshots.py ui http://127.0.0.1:5000`` while `adpet ui` shows the store there, and
``python benchmarks/screenshots.py page http://127.0.0.1:8080`` while `make demo` shows the page. Your own
scans are drawn with ``--scan FILE --output FOLDER``; the seconds to each answer of the page are printed.
"""

import argparse
import io
import shutil
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

COLOURS = 256  # keep a picture of MLflow's UI under 200 KB
PATIENCE_MS = 120_000
# WebGL without a graphics card.
CHROMIUM = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
# Hides where on this machine MLflow has a file, which its view of artifacts says above it.
HIDE_PATHS = """
for (const element of document.querySelectorAll("*"))
  if (element.children.length === 0 && /^(Path:|file:)/.test(element.textContent.trim()))
    element.style.visibility = "hidden";
"""
DESK, PHONE = (1160, 860), (360, 1180)
BROKEN = {
    "name": "scan.nii.gz",
    "mimeType": "application/gzip",
    "buffer": b"\x1f\x8b\x08\x00 and then nothing",
}
PICTURES = {
    "answer": (DESK, "AD"),
    "phone": (PHONE, "AD"),
    "cn": (DESK, "CN"),
    "broken": ((DESK[0], 420), BROKEN),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["ui", "page"])
    parser.add_argument("address", help="of the UI or the page")
    parser.add_argument("--scan", type=Path, action="append", help="draw the page with these instead")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM, timeout=PATIENCE_MS
        )
        (draw_ui if options.what == "ui" else draw_page)(browser, options)
        browser.close()


def opened(browser: Browser, size: tuple[int, int], address: str) -> Page:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address, wait_until="commit")
    return page


def picture_of(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot(timeout=PATIENCE_MS))).convert("RGB")


def draw_ui(browser: Browser, options: argparse.Namespace) -> None:
    """Draw in few colours, without the panel of MLflow's assistant and without paths."""
    for name, (fragment, ready, height) in pages(options.address).items():
        page = opened(browser, (1600, height), f"{options.address.rstrip('/')}/{fragment}")
        page.locator(ready).first.wait_for()
        panel = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
        if panel.count():
            panel.first.click()
        page.wait_for_timeout(3000)  # what slides and loads
        page.evaluate(HIDE_PATHS)
        # Coverage of the colours, not of the pixels: a map's few would go under in the page's many greys.
        few = picture_of(page).quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(options.output / f"mlflow-{name}.png", optimize=True)
        page.close()


def pages(address: str) -> dict[str, tuple[str, str, int]]:
    """Return, by name, each page's fragment, what is to be seen before it is drawn, and its height."""
    from mlflow import MlflowClient

    from adpet.tracking.registry import CHALLENGER, MODEL_NAME
    from adpet.tracking.ui_notes import run_list

    client = MlflowClient(tracking_uri=address)
    version: Any = client.get_model_version_by_alias(MODEL_NAME, CHALLENGER)
    experiment = client.get_run(version.run_id).info.experiment_id
    run = f"#/experiments/{experiment}/runs/{version.run_id}"
    return {
        "runs": (run_list(experiment), "text='test_auc'", 620),
        "run": (run, "text='Registered as'", 800),
        "model": (f"#/models/{MODEL_NAME}/versions/{version.version}", "text=/^Model card: /", 1000),
        "maps": (f"{run}/artifacts/explain/groups/groups_referenced.png", "img[src^='blob:']", 800),
        "report": (f"{run}/artifacts/report/report.html", "iframe", 1000),
    }


def draw_page(browser: Browser, options: argparse.Namespace) -> None:
    """Draw the answers to examples or scans, and how long they took."""
    own = {scan.name.partition(".")[0]: (DESK, scan) for scan in options.scan or ()}
    for name, (size, asked) in (own or PICTURES).items():
        page = opened(browser, size, options.address)
        page.wait_for_selector("body[data-ready]")
        started = time.monotonic()
        if isinstance(asked, str):
            page.click(f"#examples button[data-kind={asked}]")
        else:
            page.set_input_files("#file", asked)
        page.wait_for_selector("body[data-state=answered], body[data-state=refused]")
        print(f"{name}: answered after {time.monotonic() - started:.1f} s")
        if page.get_attribute("body", "data-state") == "answered":
            page.wait_for_selector("#viewer[data-viewer=niivue]")
            page.wait_for_timeout(4000)
        picture_of(page).save(options.output / f"web-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
