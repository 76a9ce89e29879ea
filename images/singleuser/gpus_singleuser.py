"""Start jupyterhub-singleuser without the modules that only the hub needs.

``import jupyterhub.singleuser`` also imports the hub's handlers, its database layer (SQLAlchemy,
alembic) and, on the way to the first request, all of IPython and httpx: half of the CPU time of
a server's start, for names that a single-user server never uses. This launcher puts stand-ins in
their place while the server's modules load. Two kinds:

* a *deferred* module stays in ``sys.modules`` and becomes the real one at its first real use;
* a *stand-in* is there during one import only. What took a name from it keeps that name;
  everybody else, later, imports the real module.

Set ``GPUS_PLAIN_START=1`` to start without any of this. A release of JupyterHub or JupyterLab
that does not fit falls back to the plain way with one line on stderr.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

#: Packages among the deferred modules: ``import requests.x`` asks them for ``__path__``.
_PACKAGES = {"requests", "sqlalchemy"}


class _Deferred(types.ModuleType):
    """A module that is imported when somebody asks it for a name that it does not have."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__" and self.__name__ not in _PACKAGES:
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _defer(name: str, **names: Any) -> None:
    if name not in sys.modules:
        module = _Deferred(name)
        module.__dict__.update(names)
        sys.modules[name] = module


@contextlib.contextmanager
def _stand_in(name: str, **names: Any) -> Iterator[None]:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module
    try:
        yield
    finally:
        if sys.modules.get(name) is module:
            del sys.modules[name]


def _get_ipython_dir() -> str:
    """Where IPython keeps a user's files: asked for the kernels that may be installed there."""
    return os.environ.get("IPYTHONDIR") or os.path.join(os.path.expanduser("~"), ".ipython")


class _LateClient:
    """An ``httpx.AsyncClient`` that is made when the extension manager first calls it."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(**self._options)
        return getattr(self._client, name)


def _load_singleuser() -> None:
    """``jupyterhub.singleuser`` without the hub's handlers and database."""
    before = set(sys.modules)
    # log.py asks only whether a handler is the hub's health check: here none is.
    health = type("HealthCheckHandler", (), {})
    # utils.py names it in an `except` around the hub's own database session.
    sql_error = type("SQLAlchemyError", (Exception,), {})
    try:
        _defer("jupyterhub.orm")
        _defer("jupyterhub.roles")
        _defer("sqlalchemy")
        with (
            _stand_in("jupyterhub.handlers.pages", HealthCheckHandler=health),
            _stand_in("sqlalchemy.exc", SQLAlchemyError=sql_error),
        ):
            importlib.import_module("jupyterhub.singleuser")
    except Exception as error:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"jupyterhub", "sqlalchemy", "alembic"}:
                del sys.modules[name]
        print(f"gpus_singleuser: the plain start is used: {error!r}", file=sys.stderr)


def _load_extension_manager() -> None:
    """JupyterLab's extension manager makes an HTTP client when it starts and rarely uses it."""
    from importlib.metadata import version

    # With a proxy configured it needs more of httpx at once: then it gets the real one.
    with (
        contextlib.suppress(Exception),
        _stand_in("httpx", __version__=version("httpx"), AsyncClient=_LateClient),
    ):
        importlib.import_module("jupyterlab.extensions.pypi")


def main() -> None:
    """Entry point ``jupyterhub-singleuser`` of the image."""
    if not os.environ.get("GPUS_PLAIN_START"):
        # Thousands of objects that live for ever are made now: looking for garbage is wasted.
        gc.set_threshold(20_000, 20, 20)
        _defer("requests")
        _defer("IPython.paths", get_ipython_dir=_get_ipython_dir)
        _load_singleuser()
        _load_extension_manager()
    from jupyterhub.singleuser import main as start

    sys.exit(start())


if __name__ == "__main__":
    main()
