"""The local web server: routes, headers, errors as pages. `views` says what is shown, `guard` who may ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from evergreen.components.errors import ConfigError, EvergreenError
from evergreen.pipeline.config import Config
from evergreen.pipeline.web import pages
from evergreen.pipeline.web.guard import HEADERS, Guard
from evergreen.pipeline.web.views import Page, Views

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_LOG = logging.getLogger(__name__)
_SHOWN: web.AppKey[Shown] = web.AppKey("shown")


class Shown:
    """The pages, made in one thread: ML Metadata's connection is used by one at a time, and the loop stays free.

    Args:
      config: the project's configuration.
      guard: what checks the requests.
    """

    def __init__(self, config: Config, guard: Guard):
        self.views = Views(config)
        self.guard = guard
        self.project = config.name
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pages")

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function in the pages' thread."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)

    async def page(
        self, request: web.Request, make: Callable[..., Page], *arguments: Any, **values: Any
    ) -> web.Response:
        """Makes a page.

        Args:
          request: what was asked.
          make: a method of the views.
          *arguments: its arguments.
          **values: more for the template.
        """

        def whole() -> str:
            template, shown = make(*arguments)
            return self._lay_out(request, template, **shown, **values)

        return web.Response(text=await self.work(whole), content_type="text/html")

    def _lay_out(self, request: web.Request, template: str, **values: Any) -> str:
        return pages.page(template, project=self.project, pages=True, here=request.path, **values)

    def problem(self, request: web.Request, status: int, headline: str, reason: str, step: str = "") -> web.Response:
        """Makes the page that says what went wrong."""
        text = self._lay_out(request, "problem", headline=headline, reason=reason, step=step)
        return web.Response(text=text, content_type="text/html", status=status)


def build(config: Config, guard: Guard) -> web.Application:
    """Makes the server's application.

    Args:
      config: the project's configuration.
      guard: what checks the requests.

    Returns:
      The application; nothing is read before the first request.
    """
    app = web.Application(middlewares=[_check], client_max_size=2**16)
    shown = app[_SHOWN] = Shown(config, guard)
    views = shown.views

    def show(make: Callable[..., Page], *names: str) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await shown.page(request, make, *(_argument(request, name) for name in names))

        return handler

    async def close(_: web.Application) -> None:
        shown.worker.shutdown(wait=False, cancel_futures=True)

    app.router.add_get("/", _overview)
    app.router.add_get("/pulse", _pulse)
    app.router.add_get("/runs", show(views.runs, "skip"))
    app.router.add_get("/history", show(views.history))
    app.router.add_get("/compare", show(views.compare, "before", "after"))
    app.router.add_get("/version/{number}", show(views.version, "number"))
    app.router.add_get("/run/{run}", show(views.run, "run"))
    app.router.add_get("/span/{number}", show(views.span, "number"))
    app.router.add_get("/artifact/{number}", show(views.artifact, "number"))
    app.router.add_get("/execution/{number}", show(views.execution, "number"))
    app.router.add_get("/rollback", _ask_rollback)
    app.router.add_post("/rollback", _roll_back)
    app.router.add_static("/static", pages.STATIC)
    app.on_cleanup.append(close)
    return app


def _argument(request: web.Request, name: str) -> Any:
    """Reads a part of the path or of the query; numbers are numbers, and what is missing is None or 0."""
    text = request.match_info.get(name) or request.query.get(name) or ""
    if name == "run":
        return text
    if not text:
        return 0 if name == "skip" else None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise web.HTTPNotFound(text=f"{text} is no number")
    return int(text)


@web.middleware
async def _check(request: web.Request, handler: Handler) -> web.StreamResponse:
    shown = request.app[_SHOWN]
    headers = request.headers
    refusal = shown.guard.refusal(
        request.method, headers.get("Host"), headers.get("Origin"), headers.get("Sec-Fetch-Site")
    )
    response: web.StreamResponse
    if refusal:
        response = web.Response(text=refusal + "\n", status=403)
    else:
        try:
            response = await handler(request)
        except web.HTTPRedirection as redirection:
            redirection.headers.update(HEADERS)
            raise
        except web.HTTPException as error:
            response = shown.problem(request, error.status, error.reason, error.text or "")
        except ConfigError as error:
            response = shown.problem(request, 404, error.headline, error.reason, error.next_step)
        except EvergreenError as error:
            response = shown.problem(request, 500, error.headline, error.reason, error.next_step)
        except Exception as error:
            _LOG.exception("%s", request.path)
            response = shown.problem(request, 500, "this page failed", f"{type(error).__name__}: {error}")
    response.headers.update(HEADERS)
    return response


async def _overview(request: web.Request) -> web.StreamResponse:
    shown = request.app[_SHOWN]
    token = request.query.get("token")
    if token is None:
        return await shown.page(request, shown.views.overview)
    if not shown.guard.knows(token):
        return shown.problem(
            request, 403, "this is not the token", "the address is of an earlier start", "Take the one printed last."
        )
    # Out of the address, where histories and screenshots would keep it.
    answer = web.Response(status=303, headers={"Location": "/"})
    answer.set_cookie(shown.guard.cookie, token, httponly=True, samesite="Strict")
    return answer


async def _pulse(request: web.Request) -> web.StreamResponse:
    shown = request.app[_SHOWN]
    return web.json_response({"pulse": await shown.work(shown.views.pulse)})


async def _ask_rollback(request: web.Request) -> web.StreamResponse:
    shown = request.app[_SHOWN]
    to = _argument(request, "to") or 0
    live = await shown.work(shown.views.live_version)
    trusted = shown.guard.knows(request.cookies.get(shown.guard.cookie))
    token = shown.guard.form_token(_action(to, live)) if trusted else ""
    return await shown.page(request, shown.views.rollback_form, to, form_token=token)


async def _roll_back(request: web.Request) -> web.StreamResponse:
    shown = request.app[_SHOWN]
    if not shown.guard.knows(request.cookies.get(shown.guard.cookie)):
        return shown.problem(
            request, 403, "nothing was changed", "the browser does not know the token", "Open the printed address."
        )
    form = await request.post()
    to, live, sent = (str(form.get(name, "")) for name in ("to", "live", "token"))
    now = await shown.work(shown.views.live_version)
    if not shown.guard.confirms(_action(to, live), sent):
        return shown.problem(request, 403, "nothing was changed", "the form is not of this server", "Ask again.")
    if str(now) != live:
        reason = f"version {live} was live when this was asked, {now} is now"
        return shown.problem(request, 409, "nothing was changed", reason, "Look at the overview, and ask again.")
    done = await shown.work(shown.views.roll_back, int(to))
    return await shown.page(request, lambda: ("rolled_back", dict(done)))


def _action(to: Any, live: Any) -> str:
    return f"roll back to {to} from {live}"
