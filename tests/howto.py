"""The commands of the how-tos, for the tests that run them as they stand there.

Above each block of commands (``bash``, or ``sh`` for an environment file) stands which test runs
it, ``<!-- run by tests/docker/test_howto.py -->``, or why none can, ``<!-- not run: REASON -->``.
``tests/unit/test_howto.py`` fails where neither does, and where that test does not ask for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "howto"
_BLOCK = re.compile(
    r"(?:^ *<!-- (?:run by (?P<by>\S+)|not run: (?P<why>.+?)) -->\n)?"
    r"^(?P<fence> *```)(?P<language>\w*)\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
#: languages of blocks that somebody runs
COMMANDS = ("bash", "sh")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some lines of a page that somebody copies."""

    #: of the page, without ``.md``
    page: str
    text: str
    #: the test file that runs it, from the root; "" = none
    by: str
    #: why none does; "" = one does, or nobody says
    why: str


def all_blocks(page: str) -> list[Block]:
    """The blocks of commands of a page, in its order."""
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            text=textwrap.dedent(found["text"]),
            by=found["by"] or "",
            why=found["why"] or "",
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in COMMANDS
    ]


def blocks(page: str, file: str) -> list[str]:
    """The blocks of a page that this test file (``__file__``) says to run: all of them."""
    name = Path(file).resolve().relative_to(ROOT).as_posix()
    found = [block.text for block in all_blocks(page) if block.by == name]
    assert found, f"{page}.md has nothing for {name}"
    return found


def lines(text: str) -> list[str]:
    """The commands of a block, one line each, comments left out."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def commands(page: str, file: str) -> list[str]:
    """The commands of all blocks of a page that this test file runs."""
    return [line for block in blocks(page, file) for line in lines(block)]


def shell(
    folder: Path, command: str, *, typed: str = "", path: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Type a block into a shell in ``folder``, where this package is installed and nothing is set.

    ``typed`` is what somebody answers, ``path`` a folder with more programs, ``more`` variables.
    """
    programs = folder / ".programs"
    if not programs.exists():
        programs.mkdir()
        program = programs / "jupyterhub-gpuspawner"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jupyterhub_gpuspawner.cli "$@"\n')
        program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUS_")}
    parts = [str(programs), path, environment["PATH"]]
    environment["PATH"] = os.pathsep.join(part for part in parts if part)
    return subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), **more},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
