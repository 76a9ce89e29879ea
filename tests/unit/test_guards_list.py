"""The list of guards fits the code and the page; ``./run-tests guards`` takes each of them away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.guards.listed import MODEL, MUTATIONS, SEARCHED, by_model, read
from tests.guards.page import MUTATIONS_PAGE, PAGE, render, render_mutations
from tests.guards.remove import misfits


def test_each_guard_is_in_the_code_exactly_once_and_has_its_test() -> None:
    assert misfits(read()) == [], (
        "tests/guards/guards.diff has old lines: change them with the code"
    )


def test_each_seeded_fault_fits_the_code_and_has_its_test() -> None:
    faults = read(MUTATIONS.read_text())
    assert misfits(faults) == [], "tests/guards/mutations.diff: change it with the code"
    assert len({fault.title for fault in faults}) == len(faults) >= 25
    assert MUTATIONS_PAGE.read_text() == render_mutations(faults), (
        "run python -m tests.guards --write"
    )


def test_what_the_searches_of_all_worlds_see_is_tested_by_them() -> None:
    guards = read()
    seen = by_model(guards)
    assert {guard.test for guard in seen} == set(MODEL.values())
    assert misfits(seen) == []
    for guard in guards:
        searched = guard.file.startswith(SEARCHED)
        assert bool(guard.model) is searched, f"{guard.title}: which search sees it, or why none?"


def test_a_search_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no search 'three servers'"):
        read("\n== A guard\nkeeps: S1\nfile: a.py\nmodel: three servers\ntest: unit/a.py::b\n-x\n")


def test_a_guard_whose_code_or_test_has_moved_is_seen() -> None:
    guard = read()[0]
    assert len(misfits([replace(guard, code="no such line\n")])) == 1
    for test in ("unit/test_none.py::test_a", guard.test + "_"):
        assert len(misfits([replace(guard, test=test)])) == 1


def test_the_page_has_every_guard() -> None:
    assert PAGE.read_text() == render(read()), "run python -m tests.guards --write"


def test_no_guard_is_listed_twice() -> None:
    guards = read()
    assert len({guard.title for guard in guards}) == len(guards) >= 25
    assert all(guard.code != guard.gone for guard in guards)


@pytest.mark.parametrize("part", ["keeps: a\nfile: b\n-c", "keeps: a\nfile: b\ntest: c\n+d"])
def test_a_guard_that_is_not_whole_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="guard 'A title'"):
        read(f"words\n\n== A title\n{part}\n")
