"""Take one guard away after the other, and see its test fail.

Tests run on a copy of the package and of the tests, in processes forked from one that has
imported everything heavy, a few at a time.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.guards.listed import Guard

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "jupyterhub_gpuspawner"
#: what tests of the guards import of others, once for all
HEAVY = (
    *("aiohttp", "alembic.command", "alembic.script", "docker"),
    *("dockerspawner", "hypothesis.stateful", "jupyterhub.app", "jupyterhub.user", "pydantic"),
    *("sqlalchemy.orm", "tornado.httpserver"),
    *("tornado.simple_httpclient", "prometheus_client", "yaml"),
)
#: seconds for one test
LIMIT = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a run of some tests came to."""

    #: pytest's exit code
    code: int
    #: tests that failed
    failed: tuple[str, ...]
    #: its output
    output: str


class Tree:
    """A copy of package and tests that may be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp = time.time()
        ignore = shutil.ignore_patterns("__pycache__")
        for part in (PACKAGE, "tests", "deploy", "benchmarks"):
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        for part in ("pyproject.toml", "jupyterhub_config.py"):
            shutil.copy(ROOT / part, folder / part)

    @contextmanager
    def without(self, guard: Guard) -> Any:
        """The tree without this guard, inside the block."""
        path = self.folder / PACKAGE / guard.file
        text = path.read_text()
        self._write(path, text.replace(guard.code, guard.gone))
        try:
            yield
        finally:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        """Never with a time that a compiled file was made for: those are kept."""
        self._stamp += 2
        path.write_text(text)
        os.utime(path, (self._stamp, self._stamp))

    def run(self, tests: Iterable[str]) -> Result:
        """Run these tests in a process of their own."""
        report = self.folder / "report"
        output = self.folder / "output"
        report.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _run_tests(self.folder, list(tests), report, output)
        _, status = os.waitpid(child, 0)
        failed = report.read_text().split("\n")[:-1] if report.exists() else []
        return Result(
            code=os.waitstatus_to_exitcode(status),
            failed=tuple(failed),
            output=output.read_text(errors="replace"),
        )


class _Failures:
    """A pytest plugin that writes down what fails."""

    def __init__(self, report: Path) -> None:
        self._report = report

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            with self._report.open("a") as file:
                file.write(report.nodeid + "\n")


def _run_tests(folder: Path, tests: list[str], report: Path, output: Path) -> None:
    """In the child: pytest on the tree; ends the process."""
    code = 70
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        _forget_ours()
        sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
        import pytest

        arguments = [
            *("-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout"),
            *("-p", "_hypothesis_pytestplugin", "-q", f"--timeout={LIMIT}", "--durations=0"),
            *("--maxfail=8", f"--basetemp={folder / 'tmp'}", f"--rootdir={folder}"),
        ]
        code = pytest.main([*arguments, *tests], plugins=[_Failures(report)])
    except BaseException:  # noqa: BLE001 - told by the exit code and the output
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))


def _forget_ours() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in (PACKAGE, "tests")]:
        del sys.modules[name]


def warm_up() -> None:
    """Import what is not ours, and no module of the package."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = False
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    assert not any(name.split(".")[0] == PACKAGE for name in sys.modules)


def misfits(guards: Sequence[Guard]) -> list[str]:
    """Guards whose text their module does not have exactly once, or whose test has moved."""
    found = []
    for guard in guards:
        count = (ROOT / PACKAGE / guard.file).read_text().count(guard.code)
        if count != 1:
            found.append(f"{guard.title}: {guard.file} has its text {count} times")
        name, _, test = guard.test.partition("::")
        path = ROOT / "tests" / name
        if not path.exists() or f"def {test.partition('[')[0]}(" not in path.read_text():
            found.append(f"{guard.title}: {name} has no {test}")
    return found


@contextmanager
def tree() -> Any:
    """A copy for some time."""
    shm = Path("/dev/shm")
    place = shm if shm.is_dir() and os.access(shm, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="gpus-guards-", dir=place) as folder:
        yield Tree(Path(folder))
