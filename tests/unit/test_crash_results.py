"""Playing every crash case can be interrupted, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.auditor.verdict import Finding, Kind, Verdict
from tests.crash.case import Case, Result
from tests.crash.results import Results, fingerprint

POINTS = {"start": ["hub|a:before", "hub|a:after"]}
CASES = [Case(scenario="start", point=point, fault="kill-hub") for point in POINTS["start"]]
GOOD = Result(case=CASES[0], struck=True, verdict=Verdict(), recovery=0.5)
BAD = Result(
    case=CASES[1],
    struck=True,
    verdict=Verdict.of([Finding(Kind.LOST, "a GPU")]),
    trouble="late",
    log="said",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "results.jsonl"


def begun(file: Path) -> Results:
    results = Results(file, "sources")
    results.begin(POINTS)
    results.add(GOOD)
    results.add(BAD)
    return results


def test_what_was_played_is_known_again_word_for_word(file: Path) -> None:
    begun(file)
    again = Results(file, "sources")
    assert again.points == POINTS
    assert again.played == {GOOD.case: GOOD, BAD.case: BAD}


def test_a_case_that_failed_is_played_again_and_the_last_result_counts(file: Path) -> None:
    results = begun(file)
    assert results.left(CASES) == [BAD.case]
    results.add(Result(case=BAD.case, struck=True, verdict=Verdict()))
    assert results.left(CASES) == []
    assert Results(file, "sources").left(CASES) == []


def test_a_line_that_was_cut_by_a_kill_is_a_case_that_was_not_played(file: Path) -> None:
    begun(file)
    file.write_text(file.read_text()[:-20])
    again = Results(file, "sources")
    assert set(again.played) == {GOOD.case}
    again.add(BAD)
    assert Results(file, "sources").played == {GOOD.case: GOOD, BAD.case: BAD}


def test_results_of_other_sources_count_for_nothing(file: Path) -> None:
    begun(file)
    other = Results(file, "other sources")
    assert not other.points
    assert other.left(CASES) == CASES


def test_any_change_of_a_source_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    seen = {fingerprint([tmp_path])}
    (tmp_path / "a.py").write_text("2")
    seen.add(fingerprint([tmp_path]))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    seen.add(fingerprint([tmp_path]))
    assert len(seen) == 3
