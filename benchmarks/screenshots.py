"""Draw the README's pictures of MLflow's UI, ``docs/mlflow-*.png``, from a store that has a challenger.

``python benchmarks/screenshots.py http://127.0.0.1:5000``, while `adpet ui` shows the store there.
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from adpet.tracking.registry import CHALLENGER, MODEL_NAME
from adpet.tracking.ui_notes import run_list

COLOURS = 256  # keep a picture under 200 KB
# Hides where on this machine MLflow has a file, which its view of artifacts says above it.
HIDE_PATHS = """
for (const element of document.querySelectorAll("*"))
  if (element.children.length === 0 && /^(Path:|file:)/.test(element.textContent.trim()))
    element.style.visibility = "hidden";
"""
PATIENCE_MS = 120_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address", help="of the UI")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--disable-gpu"], timeout=PATIENCE_MS
        )
        for name, (fragment, ready, height) in pages(options.address).items():
            page = browser.new_page(viewport={"width": 1600, "height": height})
            page.set_default_timeout(PATIENCE_MS)
            page.goto(f"{options.address.rstrip('/')}/{fragment}", wait_until="commit")
            page.locator(ready).first.wait_for()
            save(page, options.output / f"mlflow-{name}.png")
            page.close()


def pages(address: str) -> dict[str, tuple[str, str, int]]:
    """Return, by name, each page's fragment, what is to be seen before it is drawn, and its height."""
    client = MlflowClient(tracking_uri=address)
    version: Any = client.get_model_version_by_alias(MODEL_NAME, CHALLENGER)
    experiment = client.get_run(version.run_id).info.experiment_id
    run = f"#/experiments/{experiment}/runs/{version.run_id}"
    return {
        "runs": (run_list(experiment), "text='test.subject.auc.value'", 620),
        "run": (run, "text='Registered as'", 800),
        "model": (f"#/models/{MODEL_NAME}/versions/{version.version}", "text=/^Model card: /", 1000),
        "maps": (f"{run}/artifacts/explain/groups/groups_referenced.png", "img[src^='blob:']", 800),
        "report": (f"{run}/artifacts/report/report.html", "iframe", 1000),
    }


def save(page: Page, path: Path) -> None:
    """Draw a page in few colours, without the panel of MLflow's assistant and without paths."""
    panel = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    if panel.count():
        panel.first.click()
    page.wait_for_timeout(3000)  # what slides and loads
    page.evaluate(HIDE_PATHS)
    picture = Image.open(io.BytesIO(page.screenshot(timeout=PATIENCE_MS)))
    # Coverage of the colours, not of the pixels: a map's few would go under in the page's many greys.
    few = picture.convert("RGB").quantize(
        COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
