"""``python -m tests.guards [--write] [--model] [WORDS]``: every guard is tested.

Removes one guard of the start and the release at a time, and seeds one fault at a time (those whose
title has WORDS), and fails where its test does not. Writes or compares the pages
docs/reference/guards.md and seeded-faults.md. ``--model``: with the search of all worlds as the
test, for those guards that it sees.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.guards.listed import MODEL, MUTATIONS, Guard, by_model, read
from tests.guards.page import MUTATIONS_PAGE, PAGE, render, render_mutations
from tests.guards.remove import Tree, misfits, tree, warm_up

#: seconds for the rest of the tests' own output
LONGEST = 3000


def main(words: Sequence[str] | None = None) -> int:
    """0; 1 where a guard can go without a test that fails, or the list or the page is old."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the pages, compare nothing")
    parser.add_argument("--model", action="store_true", help="the search of all worlds is the test")
    parser.add_argument("words", nargs="*", help="only guards whose title has one of these")
    asked = parser.parse_args(words)
    listed, faults = read(), read(MUTATIONS.read_text())
    everything = by_model(listed) if asked.model else [*listed, *faults]
    guards = [g for g in everything if not asked.words or any(w in g.title for w in asked.words)]
    if old := misfits(everything):
        print("the list does not fit the code:\n  " + "\n  ".join(old))
        return 1
    begun = time.monotonic()
    warm_up()
    failed = healthy(guards)
    if not failed:
        failed = remove_each(guards, os.cpu_count() or 1)
    if asked.model:
        failed += [text for guard in unseen(listed, asked.words) if (text := not_seen(guard))]
    for text in failed:
        print(text)
    for page, text in ((PAGE, render(listed)), (MUTATIONS_PAGE, render_mutations(faults))):
        if asked.write and not failed:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            failed.append(f"{page.name} is old: python -m tests.guards --write")
            print(failed[-1])
    seconds = time.monotonic() - begun
    print(f"{len(guards)} changes one by one, {len(failed)} problems, {seconds:.0f} s")
    return 1 if failed else 0


def healthy(guards: Sequence[Guard]) -> list[str]:
    """What is wrong with the tests while all guards are there."""
    with tree() as whole:
        result = whole.run(sorted({f"tests/{guard.test}" for guard in guards}))
    if result.code == 0:
        return []
    return [f"tests fail with all guards in place: {result.output[-LONGEST:]}"]


def remove_each(guards: Sequence[Guard], workers: int) -> list[str]:
    """Remove the guards one by one, in some processes; what went wrong."""
    pipes = []
    for number in range(workers):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            _work(guards[number::workers], writer)
        os.close(writer)
        pipes.append(reader)
    found: list[str] = []
    for reader in pipes:
        with os.fdopen(reader) as lines:
            answers = [json.loads(line) for line in lines]
        os.wait()
        found += [answer for answer in answers if answer]
        if None not in answers:
            found.append("a process that removes guards has died")
    return found


def _work(guards: Sequence[Guard], writer: int) -> None:
    """In a process: one line of JSON for each guard, and null at the end."""
    try:
        with os.fdopen(writer, "w") as answers, tree() as copy:
            for guard in guards:
                print(json.dumps(without(copy, guard)), file=answers, flush=True)
            print("null", file=answers, flush=True)
    finally:
        os._exit(0)


def unseen(listed: Sequence[Guard], words: Sequence[str]) -> list[Guard]:
    """Guards of which the list says why no search sees them."""
    return [
        guard
        for guard in listed
        if guard.model.startswith("no: ") and (not words or any(w in guard.title for w in words))
    ]


def not_seen(guard: Guard) -> str:
    """Remove one of those and run all searches; "" = none of them sees it, as the list says."""
    with tree() as copy, copy.without(guard):
        result = copy.run([f"tests/{test}" for test in MODEL.values()])
    if result.code == 0:
        return ""
    return f"SEEN: {guard.title}: a search fails without it, and the list says {guard.model!r}"


def without(copy: Tree, guard: Guard) -> str:
    """Remove one guard and run its test; "" = the test fails, as it must."""
    with copy.without(guard):
        result = copy.run([f"tests/{guard.test}"])
    if result.code == 1 and any(name.startswith(f"tests/{guard.test}") for name in result.failed):
        return ""
    if result.code == 0:
        return f"SURVIVES: {guard.title} ({guard.file}): {guard.test} does not notice"
    return f"{guard.title}: exit code {result.code}: {result.output[-LONGEST:]}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
