"""The closing line of ./run-tests, which CI reads."""

from __future__ import annotations

import pytest

from tests import summary

REPORT = """<?xml version="1.0"?><testsuites><testsuite name="pytest"
 tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"/></testsuites>"""


@pytest.fixture
def closing(tmp_path, capsys):
    """Exit code and last line for phases given as (name, exit code, pytest's numbers or None)."""

    def run(*phases):
        lines = []
        for name, code, numbers in phases:
            lines.append(f"{name} 1 {code}\n")
            if numbers is not None:
                names = ("tests", "failures", "errors", "skipped")
                text = REPORT.format(**dict(zip(names, numbers, strict=True)))
                (tmp_path / f"{name}.xml").write_text(text)
        (tmp_path / "phases").write_text("".join(lines))
        code = summary.main(tmp_path)
        return code, capsys.readouterr().out.splitlines()[-1]

    return run


def test_what_failed_is_told_again_before_the_table(tmp_path, capsys):
    """CI may keep the end of the output only."""
    (tmp_path / "phases").write_text("hub-6.1 9 1\nsoak 5 1\nstyle 1 0\n")
    (tmp_path / "hub-6.1.xml").write_text(
        '<testsuites><testsuite tests="2" failures="1" errors="0" skipped="0">'
        '<testcase classname="tests.hub.test_a" name="test_good"/>'
        '<testcase classname="tests.hub.test_a" name="test_bad">'
        '<failure message="assert 1 == 2"/></testcase></testsuite></testsuites>'
    )
    (tmp_path / "soak.log").write_text("hello\nCOMPLAINT: user3: the server does not stop\n")
    (tmp_path / "style.log").write_text("all well\n")

    assert summary.main(tmp_path) == 1

    out = capsys.readouterr().out
    told, table = out.split("phase  ")
    assert "error" not in told and "all well" not in out and "test_good" not in out
    assert "failure: tests.hub.test_a::test_bad\n    assert 1 == 2" in told
    assert "soak failed (exit code 1)\n    hello\n    COMPLAINT: user3" in told
    assert table.splitlines()[-1] == "2 passed, 2 failed"


def test_phases_add_up_and_a_check_without_a_report_counts_as_one(closing):
    assert closing(("style", 0, None), ("unit", 0, (10, 0, 0, 0))) == (0, "11 passed, 0 failed")


def test_skipped_tests_are_told(closing):
    assert closing(("docker", 0, (5, 0, 0, 2))) == (0, "3 passed, 0 failed, 2 skipped")


def test_failures_and_errors_of_any_phase_fail_the_run(closing):
    phases = (("unit", 1, (10, 1, 2, 0)), ("hub-6.1", 0, (4, 0, 0, 0)))

    assert closing(*phases) == (1, "11 passed, 3 failed")


def test_a_pytest_that_broke_off_is_a_failure_even_when_its_report_tells_none(closing):
    assert closing(("hub-5.5", 3, (4, 0, 0, 0))) == (1, "4 passed, 1 failed")
    assert closing(("hub-5.5", 137, None))[0] == 1
