"""Draw the README's pictures of the page, ``docs/web-*.png``, with the AD example.

``python benchmarks/web_screenshots.py http://127.0.0.1:8080``, while `make demo` shows the page there.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PATIENCE_MS = 120_000
SIZES = {"answer": (1160, 860), "phone": (360, 1180)}
# Without a graphics card.
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address", help="of the page")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=list(WEBGL), timeout=PATIENCE_MS
        )
        for name, size in SIZES.items():
            path = options.output / f"web-{name}.png"
            draw(browser, options.address, size).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1024:.0f} KB")
        browser.close()


def draw(browser: Browser, address: str, size: tuple[int, int]) -> Image.Image:
    """Return the page with its answer."""
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.click("#examples button[data-kind=AD]")
    page.wait_for_selector("#viewer[data-viewer=niivue]")
    page.wait_for_timeout(4000)  # what slides and loads
    picture = Image.open(io.BytesIO(page.screenshot(timeout=PATIENCE_MS)))
    page.close()
    return picture.convert("RGB")


if __name__ == "__main__":
    main()
