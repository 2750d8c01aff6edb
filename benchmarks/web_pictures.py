"""Writes the pictures of the web page that the documentation shows, from a project that has lived, in a real Chromium.

    .venv/bin/python benchmarks/web_pictures.py examples/flights/evergreen.yaml docs

The project's live version should have come through all gates behind some runs, one of them refused: deliver the months
4 to 12 of the example one after the other, with a run for each.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import chromium

DESK, PHONE, HEIGHT, GAP = 1280, 390, 1010, 16


def main() -> None:
    """Starts `evergreen ui`, takes the pictures, and ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path, help="an evergreen.yaml")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    given = parser.parse_args()
    code = "import sys; from evergreen.pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "-c", str(given.project), "ui", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        asyncio.run(pictures(process.stdout.readline().strip(), given.folder))
    finally:
        process.terminate()
        process.wait()


async def pictures(address: str, folder: Path) -> None:
    """Takes every picture.

    Args:
      address: what `evergreen ui` printed.
      folder: where they go.
    """
    async with chromium.browse() as page:
        await page.look(DESK, height=HEIGHT)
        await page.open(address)
        origin = address.partition("/?")[0]
        live = origin + await page.ask("document.querySelector('#live').getAttribute('href')")
        await beside(page, folder / "web-overview.png", (origin, False, ""), (live, True, ""))
        await beside(page, folder / "web-quality.png", (live, True, "quality"), (f"{origin}/history", False, ""))
        await beside(page, folder / "web-serving.png", (live, False, "variants"), (live, True, "serving"))
        await page.look(DESK, height=HEIGHT)
        await page.open(live)
        await shrunk_to(page, "#lineage .network")
        await page.screenshot(folder / "web-lineage.png")
        if page.errors:
            raise SystemExit("\n".join(page.errors))


async def beside(page: chromium.Page, file: Path, desk: tuple[str, bool, str], phone: tuple[str, bool, str]) -> None:
    """Writes a picture of a page on a desk and of one on a phone.

    Args:
      page: the browser's tab.
      file: the picture.
      desk: the address, whether in the dark, and the id of the section to show, if not the page's beginning.
      phone: the same for the phone.
    """
    with tempfile.TemporaryDirectory() as scratch:
        parts = []
        for width, (address, dark, section) in ((DESK, desk), (PHONE, phone)):
            await page.look(width, dark=dark, height=HEIGHT)
            await page.open(address)
            if section:
                await page.ask(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
            await page.ask("new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")
            await page.screenshot(Path(scratch, f"{width}.png"))
            parts.append(Image.open(Path(scratch, f"{width}.png")).convert("RGB"))
        whole = Image.new("RGB", (DESK + GAP + PHONE, HEIGHT), (200, 200, 200))
        whole.paste(parts[0], (0, 0))
        whole.paste(parts[1], (DESK + GAP, 0))
        whole.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


async def shrunk_to(page: chromium.Page, selector: str) -> None:
    """Makes the window as high as an element and scrolls to it."""
    height = await page.ask(f"Math.ceil(document.querySelector('{selector}').getBoundingClientRect().height)")
    await page.look(DESK, height=min(int(height) + 24, HEIGHT))
    await page.ask(f"document.querySelector('{selector}').scrollIntoView({{behavior: 'instant'}})")
    await page.ask("new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")


if __name__ == "__main__":
    main()
