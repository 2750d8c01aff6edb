"""The pages in a real, headless Chromium: walked by clicking, in light and dark, as wide as a desk and as a phone."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import chromium
import pytest
from web_world import make, version_of

from evergreen.pipeline import cli

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on PATH")
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def address(project) -> Iterator[str]:
    """The address that `evergreen ui` prints."""
    code = "import sys; from evergreen.pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "-c", str(project), "ui", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        printed = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", printed)
        assert found is not None, printed + process.stdout.read()
        yield found.group()
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)


def browse(visit: Callable[[chromium.Page], Awaitable[None]]) -> chromium.Page:
    """Runs a visit in a fresh browser; what the page complained about fails the test."""

    async def run() -> chromium.Page:
        async with chromium.browse() as page:
            await visit(page)
            return page

    page = asyncio.run(run())
    assert page.errors == []
    return page


async def check(page: chromium.Page) -> None:
    """What holds of every page: no scrolling sideways, no script from the data, nothing without a name."""
    # Not against window.innerWidth, which a phone's browser widens for what does not fit.
    assert await page.ask("document.documentElement.scrollWidth") <= page.width, await page.ask("location.href")
    assert await page.ask("window.hacked === undefined")
    assert await page.ask("document.querySelectorAll('main, h1').length === 2")
    unnamed = (
        "[...document.querySelectorAll('a, button, [role=img], [role=region]')].filter(e => !(e.textContent.trim()"
    )
    unnamed += " || e.getAttribute('aria-label'))).length"
    assert await page.ask(unnamed) == 0


def contrast(text: str, ground: str) -> float:
    """The contrast of two colours as WCAG defines it."""

    def light(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    lighter, darker = sorted((light(text), light(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_from_the_live_version_to_its_spans_by_clicking(address):
    async def visit(page: chromium.Page) -> None:
        for width in WIDTHS:
            await page.look(width)
            await page.open(address)
            await check(page)
            assert await page.ask("document.querySelectorAll('.uplot canvas').length") == 2
            await page.click("#live")
            assert await page.ask("location.pathname") == f"/version/{version_of(24)}"
            await check(page)
            # From the graph to the examples, from these to everything made from their span.
            node = "[aria-label^='Examples span 23']"
            await page.click(f".network {node}")
            assert "/artifact/" in await page.ask("location.pathname")
            await check(page)
            assert "span 23" in await page.ask("document.querySelector('.network .chosen').textContent")
            await page.click(".chips .action")
            assert await page.ask("location.pathname") == "/span/23"
            await check(page)
            assert f"live version {version_of(24)} rests on it" in await page.ask("document.body.innerText")
            await page.click(f"a[href='/version/{version_of(23)}']")
            assert "not live" in await page.ask("document.querySelector('h1').textContent")
            # The graph by the keyboard.
            await page.follow(".network .node.execution")
            assert "/execution/" in await page.ask("location.pathname")

    page = browse(visit)
    origin = address.partition("/?")[0]
    assert [one for one in page.requests if not one.startswith((origin, "data:"))] == []


def test_two_versions_are_compared(address):
    async def visit(page: chromium.Page) -> None:
        for width in WIDTHS:
            await page.look(width)
            await page.open(address)
            await page.click("nav a[href='/compare']")
            await page.ask(f"document.querySelector('[name=before]').value = '{version_of(22)}'")
            await page.click("form button")
            assert await page.ask("location.search") == f"?before={version_of(22)}&after={version_of(24)}"
            text = await page.ask("document.body.innerText")
            assert "span 20" in text and "span 24" in text
            await check(page)

    browse(visit)


def test_the_pages_follow_the_preferred_colours(address):
    origin = address.partition("/?")[0]

    async def visit(page: chromium.Page) -> None:
        grounds = set()
        for dark in (False, True):
            await page.look(1280, dark=dark)
            await page.open(f"{origin}/version/{version_of(24)}")
            style = "getComputedStyle(document.querySelector({!r})).{}"
            ground = await page.ask(style.format("section", "backgroundColor"))
            grounds.add(ground)
            for selector in ("body", "section .muted", "section a", "td.figure", ".facts dt"):
                color = await page.ask(style.format(selector, "color"))
                assert contrast(color, ground) >= 4.5, (selector, dark)
            for kind in ("good", "plain"):
                colors = [await page.ask(style.format(f".badge.{kind}", name)) for name in ("color", "backgroundColor")]
                assert contrast(*colors) >= 4.5, (kind, dark)
        assert len(grounds) == 2

    browse(visit)


def test_a_report_opened_as_a_file_is_whole_and_asks_for_nothing(project, tmp_path):
    for name, arguments in (("card", []), ("history", ["--all"])):
        assert cli.main(["-c", str(project), "report", *arguments, "--html", str(tmp_path / f"{name}.html")]) == 0

    async def visit(page: chromium.Page) -> None:
        for width in WIDTHS:
            await page.look(width)
            await page.open((tmp_path / "history.html").as_uri())
            await check(page)
            assert await page.ask("document.querySelectorAll('.uplot canvas').length") >= 2
            await page.open((tmp_path / "card.html").as_uri())
            await check(page)
            await page.click(".network [aria-label^='Trainer']", loads=False)
            details = await page.ask("document.querySelector('.node-details').innerText")
            assert details.startswith("Trainer") and "fingerprint" in details

    page = browse(visit)
    assert [one for one in page.requests if not one.startswith(("file:", "data:"))] == []


def test_a_rollback_is_confirmed_in_the_page(tmp_path):
    file = make(tmp_path)
    command = [sys.executable, "-c", "import sys; from evergreen.pipeline.cli import main; sys.exit(main())"]
    process = subprocess.Popen([*command, "-c", str(file), "ui", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        async def visit(page: chromium.Page) -> None:
            await page.look(1280)
            await page.open(address)
            assert await page.ask("location.search") == ""  # the token is out of the address
            await page.click(f"a[href='/version/{version_of(23)}']")
            await page.click("a[href^='/rollback']")
            await page.click("button.danger")
            assert await page.ask("document.querySelector('h1').textContent.trim().startsWith('Rolled back')")
            await page.click("header a.brand")
            text = await page.ask("document.body.innerText")
            assert f"restores version {version_of(23)}" in text and "Publishing is held" in text

        browse(visit)
    finally:
        process.terminate()
        process.wait(60)
