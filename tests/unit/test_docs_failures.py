"""The page about failures of Docker says what the code says."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

from tests.faults import words

# real sockets, files or processes
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/howto/when-docker-fails.md").read_text(encoding="utf-8")
#: cells that describe instead of quoting
_OWN = re.compile(r"^(\(|nothing|the same|the server does|the first|an empty|-$)")


@lru_cache
def said_by_the_code() -> str:
    """Every text in the package, with what is filled in as "…"."""
    texts = []
    for path in sorted((ROOT / "jupyterhub_gpuspawner").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                texts.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def rows() -> list[list[str]]:
    """The cells of all tables, without their heads."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[1] not in ("the user reads", "---")]


def quoted(cell: str) -> str:
    """A sentence as it stands in the code: filled-in numbers and our own lead-in taken out."""
    cell = cell.removeprefix("Your last server ").split(", or ")[0]
    return re.sub(r"exit code \d+", "exit code …", cell)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:50])
def test_users_read_what_the_page_says(row: list[str]) -> None:
    assert len(row) == 4, row
    if not _OWN.match(row[1]):
        assert quoted(row[1]) in said_by_the_code()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:50])
def test_the_log_has_what_the_page_says(row: list[str]) -> None:
    engine = "no space left on device"  # Docker's own words
    if row[2] not in ("nothing", "the same", engine, "No such image", "stops (exited)"):
        assert quoted(row[2]) in said_by_the_code()


@pytest.mark.parametrize("sentence", [words.SILENT, words.REFUSED, words.LOST])
def test_every_sentence_of_the_fault_tests_is_on_the_page(sentence: str) -> None:
    assert sentence in PAGE
