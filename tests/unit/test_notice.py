"""How a server ended, in words, on the form and in the Hub's database."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.notice import LastEnd, describe, with_notice


@pytest.mark.parametrize(
    ("exit_code", "oom", "memory", "text"),
    [
        (137, True, 8 * 2**30, "stopped: out of memory, limit 8 GiB"),
        (137, True, None, "stopped: out of memory"),
        (
            1,
            True,
            2**30,
            "stopped (exit code 1); before that a process ran out of memory, limit 1 GiB",
        ),
        (None, False, 2**30, "stopped: the container is gone; somebody removed it"),
        (0, False, 2**30, "stopped by itself (exit code 0)"),
        (3, False, None, "stopped unexpectedly (exit code 3)"),
    ],
)
def test_an_end_has_one_sentence(
    exit_code: int | None, oom: bool, memory: int | None, text: str
) -> None:
    assert describe(exit_code=exit_code, oom=oom, memory=memory) == text


def test_an_end_comes_back_from_the_database_as_it_was() -> None:
    last = LastEnd(text="stopped", log_tail="x\ny")
    assert LastEnd.from_state(last.to_state()) == last


@pytest.mark.parametrize("state", [None, "text", 3, [], {}, {"text": 3}, {"log_tail": "x"}])
def test_an_odd_state_is_no_end(state: object) -> None:
    assert LastEnd.from_state(state) is None


def test_the_form_shows_the_end_above_it_and_escapes_what_the_server_printed() -> None:
    last = LastEnd(text="stopped <b>", log_tail="</pre><script>alert(1)</script>")
    page = with_notice("<form>", last)
    assert page.endswith("<form>")
    assert "<script>" not in page
    assert "stopped &lt;b&gt;" in page
    assert "&lt;/pre&gt;&lt;script&gt;" in page
    assert "<details>" not in with_notice("<form>", LastEnd(text="stopped"))


def test_a_form_without_an_end_is_as_it_was() -> None:
    assert with_notice("<form>", None) == "<form>"
