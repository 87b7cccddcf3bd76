"""Draw the pictures of the page, ``docs/web-*.png``: AD on a desk and a phone, CN, a broken file.

``python benchmarks/web_screenshots.py http://127.0.0.1:8080``, while `make demo` shows the page there. Your
own scans are drawn with ``--scan FILE --output FOLDER``; the seconds to each answer are printed.
"""

import argparse
import io
import shutil
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PATIENCE_MS = 120_000
DESK, PHONE = (1160, 860), (360, 1180)
# Without a graphics card.
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
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
    parser.add_argument("address", help="of the page")
    parser.add_argument("--scan", type=Path, action="append", help="draw these instead")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    options = parser.parse_args()
    own = {scan.name.partition(".")[0]: (DESK, scan) for scan in options.scan or ()}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(WEBGL), timeout=PATIENCE_MS
        )
        for name, ((width, height), asked) in (own or PICTURES).items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PATIENCE_MS)
            page.goto(options.address)
            seconds = answered(page, asked)
            path = options.output / f"web-{name}.png"
            picture = Image.open(io.BytesIO(page.screenshot(timeout=PATIENCE_MS)))
            picture.convert("RGB").save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1024:.0f} KB; answered after {seconds:.1f} s")
        browser.close()


def answered(page: Page, asked: "str | Path | dict[str, object]") -> float:
    """Give an example or a file to the page; return the seconds to its answer, when all is drawn."""
    page.wait_for_selector("body[data-ready]")
    started = time.monotonic()
    if isinstance(asked, str):
        page.click(f"#examples button[data-kind={asked}]")
    else:
        page.set_input_files("#file", asked)
    page.wait_for_selector("body[data-state=answered], body[data-state=refused]")
    seconds = time.monotonic() - started
    if page.get_attribute("body", "data-state") == "answered":
        page.wait_for_selector("#viewer[data-viewer=niivue]")
        page.wait_for_timeout(4000)
    return seconds


if __name__ == "__main__":
    main()
