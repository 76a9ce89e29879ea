"""Results on disk, so that playing every case can be interrupted and goes on where it was."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.auditor.verdict import Verdict
from tests.crash.case import Case, Result

ROOT = Path(__file__).parents[2]
#: what a case is made of: with other sources it has to be played again
SOURCES = ("jupyterhub_gpuspawner", "tests/crash", "tests/auditor", "tests/fake_engine")


def fingerprint(folders: Iterable[Path] = tuple(ROOT / name for name in SOURCES)) -> str:
    """One word for the content of all Python files in these folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)} ".encode() + content)
    return digest.hexdigest()


class Results:
    """A file of JSON lines: first the sources and the points, then a line for each case.

    Parameters
    ----------
    path:
        Of the file; one of other sources is begun anew.
    sources:
        See :func:`fingerprint`.
    """

    def __init__(self, path: Path, sources: str) -> None:
        self._path = path
        self._sources = sources
        self._lock = threading.Lock()
        #: scenario -> its points; empty = not recorded yet
        self.points: dict[str, list[str]] = {}
        #: case -> what came of it last
        self.played: dict[Case, Result] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        head = _json(lines[0]) if lines else {}
        if head.get("sources") == sources:
            self.points = head["points"]
            for data in map(_json, lines[1:]):
                if data:
                    self._take(_result(data))

    def begin(self, points: Mapping[str, Sequence[str]]) -> None:
        """Begin the file anew, with these points."""
        self.points = {name: list(found) for name, found in points.items()}
        self.played.clear()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        head = {"sources": self._sources, "points": self.points}
        self._path.write_text(json.dumps(head))

    def add(self, result: Result) -> None:
        """Write a result down. For any thread."""
        with self._lock, open(self._path, "a") as file:
            # a line that a kill has cut short ends where the next one begins
            file.write("\n" + json.dumps(asdict(result)))
            self._take(result)

    def left(self, cases: Iterable[Case]) -> list[Case]:
        """Which of them are still to be played: those that have not passed."""
        return [case for case in cases if case not in self.played or not self.played[case].ok]

    def _take(self, result: Result) -> None:
        self.played[result.case] = result


def _json(line: str) -> dict[str, Any]:
    """A line; empty for one of which only a part was written."""
    try:
        data: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return data


def _result(data: dict[str, Any]) -> Result:
    verdict = data["verdict"]
    return Result(
        **{
            **data,
            "case": Case(**data["case"]),
            "verdict": Verdict(**{**verdict, "details": tuple(verdict["details"])}),
        }
    )
