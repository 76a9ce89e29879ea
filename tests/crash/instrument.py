"""Puts points into the package's code while it is imported. Tests only.

Each ``await``, ``async for`` and ``async with`` of ``jupyterhub_gpuspawner`` becomes a point with a
name that does not depend on line numbers: ``<module>:<qualified name>:<number in it>``. Exchanges
with the engine and statements of the ledger become points around the calls that do them. New code
is covered by being there.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

from tests.crash import points

PACKAGE = "jupyterhub_gpuspawner"
#: module -> names of the points that were put into it
FOUND: dict[str, list[str]] = defaultdict(list)

#: an object that is there in every instrumented module under this name
_NAME = "_crash_points"


class Rewriter(ast.NodeTransformer):
    """Wraps what waits."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._where: list[str] = []
        self._numbers: dict[str, int] = defaultdict(int)

    def _named(self, node: Any) -> Any:
        self._where.append(node.name)
        self.generic_visit(node)
        self._where.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _named

    def _point(self) -> ast.Constant:
        where = ".".join(self._where) or "<module>"
        self._numbers[where] += 1
        name = f"{self._module}:{where}:{self._numbers[where]}"
        FOUND[self._module].append(name)
        return ast.Constant(name)

    def _call(self, function: str, *arguments: ast.expr) -> ast.Call:
        target = ast.Attribute(ast.Name(_NAME, ast.Load()), function, ast.Load())
        return ast.Call(target, list(arguments), [])

    def visit_Await(self, node: ast.Await) -> ast.expr:
        point = self._point()
        self.generic_visit(node)
        waiting = ast.Await(self._call("before", point, node.value))
        return ast.copy_location(self._call("after", point, waiting), node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AsyncFor:
        point = self._point()
        self.generic_visit(node)
        node.iter = self._call("Iterating", point, node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        if node.is_async:
            point = self._point()
            self.generic_visit(node)
            node.iter = self._call("Iterating", point, node.iter)
        else:
            self.generic_visit(node)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AsyncWith:
        places = [self._point() for _ in node.items]
        self.generic_visit(node)
        for point, item in zip(places, node.items, strict=True):
            item.context_expr = self._call("Entering", point, item.context_expr)
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        tree = Rewriter(self.name.removeprefix(f"{PACKAGE}.")).visit(ast.parse(data, str(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def get_code(self, fullname: str) -> CodeType:
        # never the cached bytecode, and nothing of this into the cache
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[_NAME] = points
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != PACKAGE and not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def install() -> None:
    """Instrument what is imported from now on, and the exchanges. The package must not be there."""
    if PACKAGE in sys.modules:
        raise RuntimeError(f"{PACKAGE} was imported before it could be instrumented")
    sys.meta_path.insert(0, _Finder())
    _instrument_engine()
    _instrument_ledger()


_VERSION = re.compile(r"^/v\d+\.\d+")
_ID = re.compile(r"(?<=/)([0-9a-f]{64}|gpus-[^/]*)(?=/|$)")


def _instrument_engine() -> None:
    """Docker's SDK sends all its requests through this."""
    import requests.adapters
    import requests.exceptions

    send = requests.adapters.HTTPAdapter.send
    around = contextmanager(points.exchange)

    def error() -> Exception:
        return requests.exceptions.ConnectionError("the connection was cut by the test")

    def instrumented(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        path = _ID.sub("*", _VERSION.sub("", request.path_url.partition("?")[0]))
        with around(f"engine {request.method} {path}", error):
            return send(self, request, *args, **kwargs)

    requests.adapters.HTTPAdapter.send = instrumented  # type: ignore[method-assign]


def _instrument_ledger() -> None:
    """Each statement and each commit on an SQLite file of ours."""
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect

    around = contextmanager(points.exchange)

    def error() -> Exception:
        return sqlite3.OperationalError("disk I/O error")

    def words(statement: str) -> str:
        return " ".join(re.findall(r"[A-Za-z_]+", statement)[:3])

    execute, many = SQLiteDialect.do_execute, SQLiteDialect.do_executemany
    commit = SQLiteDialect.do_commit

    def do_execute(self: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not _is_ledger(cursor.connection):
            return execute(self, cursor, statement, *rest)
        with around(f"ledger {words(statement)}", error):
            execute(self, cursor, statement, *rest)

    def do_executemany(self: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not _is_ledger(cursor.connection):
            return many(self, cursor, statement, *rest)
        with around(f"ledger {words(statement)} (many)", error):
            many(self, cursor, statement, *rest)

    def do_commit(self: Any, connection: Any) -> None:
        if not _is_ledger(connection):
            return commit(self, connection)
        with around("ledger COMMIT", error):
            commit(self, connection)

    SQLiteDialect.do_execute = do_execute  # type: ignore[method-assign]
    SQLiteDialect.do_executemany = do_executemany  # type: ignore[method-assign]
    SQLiteDialect.do_commit = do_commit  # type: ignore[method-assign]


def _is_ledger(connection: Any) -> bool:
    """Whether it is a file; the Hub's own database is in memory here."""
    raw = getattr(connection, "dbapi_connection", None) or connection
    raw = getattr(raw, "driver_connection", raw)
    known: dict[int, bool] = _is_ledger.__dict__.setdefault("known", {})
    if id(raw) not in known:
        cursor = raw.cursor()
        known[id(raw)] = bool(cursor.execute("PRAGMA database_list").fetchone()[2])
        cursor.close()
    return known[id(raw)]
