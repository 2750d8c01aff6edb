"""A headless Chromium, driven by the DevTools protocol; needs nothing but the browser and aiohttp."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_SECONDS = 120


class Page:
    """One tab.

    Attributes:
      errors: what the page logged as an error, what it could not load, what it did not catch.
      requests: every address that it asked for.
      width: of the window, pixels.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded: set[str] = set()  # by the id of the load, for a page may be left before it is whole
        self._load = asyncio.Condition()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.width = 0

    async def listen(self) -> None:
        """Takes in what the browser says, until it says no more."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            method, params = said["method"], said["params"]
            if method == "Page.lifecycleEvent":
                if params["name"] == "load":
                    async with self._load:
                        self._loaded.add(params["loaderId"])
                        self._load.notify_all()
            elif method == "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"])[:500])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
                self.errors.append(json.dumps(params["args"])[:500])
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def call(self, method: str, **params: Any) -> Any:
        """Asks the browser for something and waits for the answer."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        answer = self._answers[number]
        await self._socket.send_json({"id": number, "method": method, "params": params})
        said = await asyncio.wait_for(answer, _SECONDS)
        assert "error" not in said, f"{method}: {said.get('error')}"
        return said["result"]

    async def open(self, address: str) -> None:
        """Opens a page and waits until it is loaded."""
        loader = (await self.call("Page.navigate", url=address))["loaderId"]
        await self._wait(lambda: loader in self._loaded)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        async with self._load:
            await asyncio.wait_for(self._load.wait_for(condition), _SECONDS)

    async def ask(self, script: str) -> Any:
        """Returns what an expression is in the page."""
        done = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def click(self, selector: str, *, loads: bool = True) -> None:
        """Clicks where an element is, as a mouse does.

        Args:
          selector: of CSS; the first element that it finds.
          loads: wait for the page that opens.
        """
        place = await self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            "e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            "const r = (e.querySelector('rect') || e).getClientRects()[0];"
            "return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()"
        )
        assert place is not None, f"there is no {selector}"
        known = len(self._loaded)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
        if loads:
            await self._wait(lambda: len(self._loaded) > known)

    async def follow(self, selector: str) -> None:
        """Puts the focus on a link, presses Enter, and waits for the page that opens."""
        await self.ask(f"document.querySelector({json.dumps(selector)}).focus()")
        known = len(self._loaded)
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)
        await self._wait(lambda: len(self._loaded) > known)

    async def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Sets the window's width in pixels and the colour scheme that the user prefers."""
        self.width = width
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Writes a picture of the window, or of the whole page, as PNG."""
        taken = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))


@contextlib.asynccontextmanager
async def browse() -> AsyncIterator[Page]:
    """Starts the browser with one empty tab and ends it.

    Yields:
      The tab.
    """
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port_file = Path(profile, "DevToolsActivePort")
            for _ in range(_SECONDS * 5):
                if port_file.exists() and port_file.read_text().count("\n"):
                    break
                await asyncio.sleep(0.2)
            port = port_file.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tab = next(one for one in await answer.json() if one["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await page.call(f"{domain}.enable")
                    await page.call("Page.setLifecycleEventsEnabled", enabled=True)
                    yield page
                    listening.cancel()
        finally:
            process.terminate()
            await process.wait()
