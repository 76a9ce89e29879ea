"""The service as a program: options, port, and the loop that everything runs in.

The Hub waits for this service, and so does whoever restarts it: so the port answers first, and
only then comes what takes seconds to import: the scheduler, and last the pages for people.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application as WebApplication
from tornado.web import RequestHandler
from traitlets import Unicode
from traitlets.config import Application

from .. import __version__
from ..errors import ConfigError, LedgerFenced
from . import waiting
from .headers import protect
from .options import PREFIX, GPUScheduler
from .service_token import service_token
from .supervisor import EXIT_FENCED

if TYPE_CHECKING:
    from .desk import Desk

__all__ = ["GPUScheduler", "SchedulerApp", "add_routes", "web_application"]

log = logging.getLogger("gpus")
T = TypeVar("T")

#: bytes of a request's body
LARGEST_BODY = 1024 * 1024
#: seconds the tasks get to end
STOP_LIMIT = 5.0
#: seconds for the ledger to open before the pages are brought all the same
OPEN_LIMIT = 10.0
#: seconds that a browser waits for the pages
PAGES_LIMIT = 10.0


class EarlyHandler(RequestHandler):
    """Answers while the rest is being imported, and later for addresses that do not exist.

    While only the pages are missing, who asks for one waits for it.
    """

    def set_default_headers(self) -> None:
        protect(self)

    async def prepare(self) -> None:
        self.set_header("Content-Type", "application/json")
        path = self.request.path
        pages: asyncio.Event = self.settings["pages"]
        if self._may_wait(path) and await waiting.happens(pages, PAGES_LIMIT):
            self.redirect(self.request.uri or path)
        elif pages.is_set():
            self.set_status(404)
            self.finish(_json(reason="not_found", message="There is nothing at this address."))
        elif path.endswith("/api/health"):
            self.finish(
                _json(
                    ok=True,
                    phase="starting",
                    reason="scheduler_starting",
                    message="The scheduler is starting.",
                    version=__version__,
                )
            )
        elif "/api/" in path:
            self.set_status(503)
            self.finish(_json(reason="scheduler_starting", message="The scheduler is starting."))
        else:
            # the Hub looks here to see that the service is up
            self.set_header("Content-Type", "text/plain")
            self.set_header("Refresh", "1")
            self.finish("The scheduler is starting.")

    def _may_wait(self, path: str) -> bool:
        prefix = self.settings["prefix"]  # "" = not even the API is there
        early = bool(prefix) and not self.settings["pages"].is_set()
        return early and path.startswith(prefix) and "/api/" not in path


def _json(**values: Any) -> str:
    return json.dumps(values)


class SchedulerApp(Application):
    """Runs the scheduler; ``python -m jupyterhub_gpuspawner.service`` starts it."""

    name = "gpus"
    version = __version__
    description = "Scheduler service of jupyterhub-gpuspawner"
    classes = [GPUScheduler]
    aliases = {"config": "SchedulerApp.config_file"}

    config_file = Unicode(help="JSON or Python file with a ``GPUScheduler`` section.").tag(
        config=True
    )

    @classmethod
    def launch(cls, arguments: Sequence[str]) -> int:
        """Read the options and run until a signal comes; the exit code. ``ConfigError``."""
        app = cls(raise_config_file_errors=True)
        for name in (one.partition("=")[0] for one in arguments if one.startswith("-")):
            # argparse would print its usage, which knows none of ours
            if "." not in name and name not in ("--config", "--debug", "--show-config"):
                raise ConfigError(
                    f"unknown option {name}; allowed: --config FILE, --GPUScheduler.NAME=VALUE"
                )
        try:
            app.parse_command_line(list(arguments))
            if app.extra_args:
                raise ConfigError(f"unknown argument {app.extra_args[0]!r}")
            if app.config_file:
                app.read(app.config_file)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a config file may be any program
            what = f"--config {app.config_file}" if app.config_file else "command line"
            raise ConfigError(f"{what}: {' '.join(str(error).split())}") from None
        options = GPUScheduler(config=app.config)
        return asyncio.run(serve(options))

    def read(self, path: str) -> None:
        """Take in a config file. What the command line says counts more."""
        if not os.path.isfile(path):
            # traitlets would go on with the defaults
            raise ConfigError(f"--config {path}: there is no such file")
        given = copy.deepcopy(self.cli_config)
        folder, name = os.path.split(os.path.abspath(path))
        self.load_config_file(name, path=folder)
        self.update_config(given)


async def serve(options: GPUScheduler) -> int:
    """Bind the port, answer, and bring up the rest; the exit code."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, end, 0)
    token = service_token(options.token_path)
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", PREFIX)
    web = web_application()
    server = HTTPServer(web, max_body_size=LARGEST_BODY)
    host, port = options.bind()
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        # the one before may still be ending: the supervisor tries again
        log.error("can't listen on %s:%d: %s", host, port, error.strerror)
        return 1
    server.add_sockets(sockets)
    log.info("serving on %s:%d%s", *sockets[0].getsockname()[:2], prefix)

    def fenced(error: LedgerFenced) -> None:
        end(EXIT_FENCED)

    async def live() -> None:
        modules = await loop.run_in_executor(None, _import_the_rest)
        pace = modules.Pace(options.request_rate, options.request_burst)
        metrics = modules.Metrics(show_users=options.metrics_show_users)
        desk = modules.Desk(token, os.environ.get("GPUS_BOOT_ID", ""), pace, metrics)
        hub = _hub(modules, desk)
        pool = modules.EnginePool(options.docker_host or None, timeout=options.engine_timeout)
        outside = modules.real_outside(options, pool, hub.start if hub else None)
        importing = threading.Lock()
        outside = replace(outside, open_ledger=_holding(importing, outside.open_ledger))
        add_api(web, prefix, desk)
        runtime = modules.Runtime(options, desk, outside, on_fenced=fenced)
        parts = [
            asyncio.create_task(runtime.run(), name="runtime"),
            asyncio.create_task(_bring_pages(web, prefix, desk, importing), name="pages"),
        ]
        try:
            # the runtime only ever fails
            await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            await waiting.end(parts)
            pool.close()

    running = asyncio.create_task(live(), name="runtime")
    running.add_done_callback(lambda _: end(1))
    code = await stop
    server.stop()
    if running.done() and not running.cancelled() and running.exception() is not None:
        log.error("scheduler: a part of it failed", exc_info=running.exception())
    running.cancel()
    await asyncio.wait([running], timeout=STOP_LIMIT)
    log.info("ended")
    return code


def _hub(modules: Any, desk: Desk) -> Any:
    """The Hub's API for all who need it; None without a Hub."""
    hub = modules.HubAPI.from_environment()
    desk.hub_stop = hub.stop if hub else None
    return hub


def _import_the_rest() -> Any:
    """Import what is slow to import."""
    from . import everything

    return everything


def _holding(lock: threading.Lock, work: Callable[[], T]) -> Callable[[], T]:
    def call() -> T:
        with lock:
            return work()

    return call


async def _bring_pages(
    web: WebApplication, prefix: str, desk: Desk, importing: threading.Lock
) -> None:
    """Add the pages, for people. JupyterHub's login takes as long to import as all else together.

    Not while the ledger is opened: both may import alembic, whose modules import each other.
    """

    def load() -> None:
        held = importing.acquire(timeout=OPEN_LIMIT)
        try:
            importlib.import_module(".pages", __package__)
            importlib.import_module(".api", __package__)
        finally:
            if held:
                importing.release()

    await asyncio.get_running_loop().run_in_executor(None, load)
    add_pages(web, prefix, desk)


def web_application() -> WebApplication:
    """An application that answers everything with "starting"."""
    return WebApplication(
        default_handler_class=EarlyHandler,
        pages=asyncio.Event(),
        prefix="",
        cookie_secret=os.urandom(32),
        log_function=_log_request,
        autoreload=False,
        compress_response=False,
    )


def add_routes(web: WebApplication, prefix: str, desk: Desk) -> None:
    """Add all routes under ``prefix``, which begins and ends with ``/``."""
    add_api(web, prefix, desk)
    add_pages(web, prefix, desk)


def add_api(web: WebApplication, prefix: str, desk: Desk) -> None:
    """Add the routes of the API under ``prefix``."""
    from . import api_agents, api_internal

    for one in _prefixes(prefix):
        web.add_handlers(".*", api_internal.routes(one, desk))
        web.add_handlers(".*", api_agents.routes(one, desk))
    web.settings["prefix"] = prefix


def add_pages(web: WebApplication, prefix: str, desk: Desk) -> None:
    """Add the routes for people and their programs under ``prefix``, the last ones."""
    from . import api, pages

    web.add_handlers(".*", pages.routes(prefix, desk))
    for one in _prefixes(prefix):
        web.add_handlers(".*", api.routes(one, desk))
    web.settings["pages"].set()


def _prefixes(prefix: str) -> Iterable[str]:
    """Where the API is: through the proxy, and for who comes without knowing its base_url."""
    return dict.fromkeys((prefix, PREFIX))


def _log_request(handler: Any) -> None:
    """Failures only, and never a query: it may hold a login's code."""
    status = handler.get_status()
    if status >= 500:
        request = handler.request
        log.warning("%s %s: answered %d", request.method, request.path[:200], status)
