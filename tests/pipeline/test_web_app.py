"""The local web server over HTTP: its pages, who may ask, and the one thing that it changes."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer, unused_port
from web_world import NASTY, make, version_of

from evergreen.components.pusher import versions, withdrawal
from evergreen.pipeline import cli, config
from evergreen.pipeline.web import app, schedule, views
from evergreen.pipeline.web.guard import Guard


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("web"))


def serve(file: Path, ask: Callable[[TestClient, Guard], Awaitable[None]]) -> None:
    """Starts the server for as long as `ask` works with it."""

    async def run() -> None:
        port = unused_port()
        guard = Guard(port)
        server = TestServer(app.build(config.load(file), guard), host="127.0.0.1", port=port)
        async with TestClient(server) as client:
            await ask(client, guard)

    asyncio.run(run())


def test_every_page_answers_and_keeps_names_from_the_data_as_text(project):
    model = views.Views(config.load(project)).lineage.version().training.model_id
    pages = {
        "/": [f'Version <a href="/version/{version_of(24)}"', "model rejected"],
        "/runs?skip=5": ["20200101T000019-1", "gate 2"],
        "/history": ["History of the model", "What was refused"],
        f"/version/{version_of(24)}": ["Trained on", 'href="/span/24"', "&lt;script&gt;window.hacked"],
        f"/version/{version_of(3)}": ["no longer on disk"],
        "/run/20200101T000009": ["model rejected"],
        "/span/2": ["trained on it", "warm start, 2 models after it"],
        f"/artifact/{model}": ["Model", "Everything made from span 24"],
        "/execution/1": ["What went in and what came out"],
        f"/compare?before={version_of(22)}&after={version_of(23)}": ["span 20", "+0.01"],
    }

    async def ask(client: TestClient, _: Guard) -> None:
        for path, shown in pages.items():
            async with client.get(path) as answer:
                text = await answer.text()
                assert answer.status == 200, (path, text)
                assert NASTY not in text
                for words in shown:
                    assert words in text, (path, words)
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for path, status in (("/version/5", 404), ("/artifact/x", 404), ("/nothing", 404), ("/execution/999999", 404)):
            async with client.get(path) as answer:
                assert answer.status == status and 'class="reason"' in await answer.text(), path
        for name in ("style.css", "plots.js", "uplot/uPlot.iife.min.js", "dagre/LICENSE"):
            async with client.get(f"/static/{name}") as answer:
                assert answer.status == 200
        async with client.get("/static/../app.py") as answer:
            assert answer.status in (403, 404)

    serve(project, ask)


def test_another_name_or_another_site_gets_nothing(project):
    async def ask(client: TestClient, _: Guard) -> None:
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            async with client.get("/", headers=headers) as answer:
                assert answer.status == 403 and "flights" not in await answer.text()
        async with client.post("/rollback", data={"to": "1"}) as answer:
            assert answer.status == 403
        async with client.post("/", headers={"Origin": str(client.make_url("")).rstrip("/")}) as answer:
            assert answer.status == 405

    serve(project, ask)


@pytest.fixture
def own(project, tmp_path) -> Path:
    """A copy of the project, to be changed."""
    shutil.copytree(project.parent, tmp_path / "own")
    return tmp_path / "own" / "evergreen.yaml"


def hidden(text: str) -> dict[str, str]:
    """The fields of a page's form."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text))


def test_a_rollback_needs_the_token_and_the_form(own):
    base = own.parent / "serving" / "many"

    async def ask(client: TestClient, guard: Guard) -> None:
        origin = {"Origin": str(client.make_url("")).rstrip("/")}
        page = f"/rollback?to={version_of(23)}"
        async with client.get(page) as answer:
            text = await answer.text()
            assert "This browser may look only" in text and not hidden(text)
        form = {"to": str(version_of(23)), "live": str(version_of(24)), "token": "guessed"}
        async with client.post("/rollback", data=form, headers=origin) as answer:
            assert answer.status == 403
        async with client.get("/?token=guessed", allow_redirects=False) as answer:
            assert answer.status == 403 and "Set-Cookie" not in answer.headers
        async with client.get(f"/?token={guard.token}", allow_redirects=False) as answer:
            assert answer.status == 303 and answer.headers["Location"] == "/"
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        # The client of these tests keeps no cookie of an address without a name.
        known = {"Cookie": f"{guard.cookie}={guard.token}"}
        async with client.get(page, headers=known) as answer:
            form = hidden(await answer.text())
        assert form["to"] == str(version_of(23))
        for wrong in ({"to": str(version_of(22))}, {"live": str(version_of(22))}, {"token": ""}):
            async with client.post("/rollback", data={**form, **wrong}, headers={**known, **origin}) as answer:
                assert answer.status == 403, wrong
        async with client.post("/rollback", data=form, headers=known) as answer:
            assert answer.status == 403  # no Origin
        assert versions.live_version(base) == version_of(24)
        async with client.post("/rollback", data=form, headers={**known, **origin}) as answer:
            text = await answer.text()
            assert answer.status == 200, text
        live = versions.live_version(base)
        assert live is not None and live > version_of(24)
        assert f'href="/version/{live}"' in text and "evergreen release" in text
        async with client.get("/") as answer:
            text = await answer.text()
            assert "Publishing is held" in text and "rolled back" in text
        # The same form once more: another version is live now.
        async with client.post("/rollback", data=form, headers={**known, **origin}) as answer:
            assert answer.status == 409
        assert versions.live_version(base) == live

    serve(own, ask)


def test_the_pulse_beats_when_something_is_published(own):
    async def ask(client: TestClient, _: Guard) -> None:
        async def pulse() -> str:
            async with client.get("/pulse") as answer:
                return str((await answer.json())["pulse"])

        first = await pulse()
        assert await pulse() == first
        assert cli.main(["-c", str(own), "rollback"]) == 0
        assert await pulse() != first

    serve(own, ask)


def test_a_withdrawn_version_is_shown_as_such_and_is_nothing_to_go_back_to(own):
    base = own.parent / "serving" / "many"
    withdrawal.record(base, version_of(23), "it answered <wrong>", "2020-01-02T00:00:00Z")
    withdrawal.complete(base)

    async def ask(client: TestClient, _: Guard) -> None:
        async with client.get("/") as answer:
            text = await answer.text()
            assert "withdrawn</span><small>it answered &lt;wrong&gt;" in text
        async with client.get(f"/rollback?to={version_of(23)}") as answer:
            text = await answer.text()
            assert answer.status == 404 and "it was withdrawn: it answered" in text

    serve(own, ask)


def test_the_store_may_come_later(own):
    store = own.parent / ".evergreen" / "metadata.db"
    aside = store.rename(store.with_name("aside"))

    async def ask(client: TestClient, _: Guard) -> None:
        async with client.get("/") as answer:
            assert answer.status == 200 and "There are no runs yet" in await answer.text()
        assert not store.exists()  # looking makes none
        shutil.copy(aside, store)
        async with client.get("/") as answer:
            assert "20200101T000024-1" in await answer.text()

    serve(own, ask)


def test_the_schedule_is_shown_where_there_is_one(own):
    loaded = config.load(own)
    assert schedule.state(loaded) is None
    folder = loaded.workspace_dir / "schedule"
    folder.mkdir()
    (folder / "state.json").write_text(
        '{"queue": [{"trigger": "cron", "scheduled": 1795421158.0, "span": null}], "running": null, "failures": 2,'
        ' "paused": {"since": 1795421158.0, "reason": "three runs failed"},'
        ' "ended": [{"trigger": "cron", "result": "failed", "ended": 1795421158.0, "reason": "<b>no</b> space"}]}'
    )

    async def ask(client: TestClient, _: Guard) -> None:
        async with client.get("/") as answer:
            text = await answer.text()
            assert "three runs failed" in text and "2 failed runs in a row" in text
            assert "&lt;b&gt;no&lt;/b&gt; space" in text
        (folder / "state.json").write_text("not JSON")
        async with client.get("/") as answer:
            assert answer.status == 200 and "Schedule" not in await answer.text()

    serve(own, ask)


def test_a_port_that_is_taken_is_one_clear_error(project, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["-c", str(project), "ui", "--port", port]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err
