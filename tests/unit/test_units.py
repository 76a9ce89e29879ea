"""Memory and time: what is read, what is refused, what is shown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuspawner.units import (
    MAX_DURATION,
    MAX_MEMORY,
    format_duration,
    format_memory,
    parse_duration,
    parse_memory,
)

GIB = 1024**3


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("512K", 512 * 1024),
        ("512M", 512 * 1024**2),
        ("8G", 8 * GIB),
        ("8g", 8 * GIB),
        (" 8 GB ", 8 * GIB),
        ("8GiB", 8 * GIB),
        ("1.5G", 3 * GIB // 2),
        ("1T", 1024 * GIB),
        (2.0, 2),
    ],
)
def test_memory_is_read_in_powers_of_1024(value, size):
    assert parse_memory(value) == size


@pytest.mark.parametrize(
    "value",
    [
        *("", "G", "8X", "8GG", "-8G", "8 G 4", "1e9", "0x10", "٨G", "8G\n8G", "9" * 5000 + "G"),
        *(-1, True, None, [], {}, b"8G", math.nan, math.inf, MAX_MEMORY + 1, 10**5000),
    ],
    ids=lambda value: f"{value!r:.20}" if value != 10**5000 else "10**5000",
)
def test_what_is_not_an_amount_of_memory_is_refused(value):
    with pytest.raises(ValueError, match="is not") as refusal:
        parse_memory(value)
    assert len(str(refusal.value)) < 200


def test_a_refused_amount_of_memory_names_the_accepted_forms():
    with pytest.raises(ValueError) as refusal:
        parse_memory("eight")
    assert str(refusal.value) == (
        "'eight' is not an amount of memory: "
        'use bytes or a number with K, M, G or T, such as "512M" or "8G"'
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (60, 60.0),
        ("60", 60.0),
        ("90s", 90.0),
        ("30m", 1800.0),
        ("30 min", 1800.0),
        ("4h", 14400.0),
        ("1H30m", 5400.0),
        ("2d", 172800.0),
        (0.5, 0.5),
    ],
)
def test_time_is_read_in_seconds(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "h", "4x", "4hh", "-4h", "4h-", "4 h 3", 0, "0h", -1, True, None, [], math.nan, "20000d"],
)
def test_what_is_not_a_length_of_time_is_refused(value):
    with pytest.raises(ValueError, match="is not"):
        parse_duration(value)


#: a short alphabet: the tables of all of Unicode take Hypothesis seconds to load
TEXT = st.text(alphabet="0123456789.-+eE KMGTiBsmhdin٨\n", max_size=20)


@pytest.mark.slow
@given(st.one_of(TEXT, st.integers(), st.floats(), st.none(), st.binary()))
def test_any_value_gives_a_bounded_amount_or_a_value_error(value):
    for parse, most in ((parse_memory, MAX_MEMORY), (parse_duration, MAX_DURATION)):
        try:
            amount = parse(value)
        except ValueError:
            continue
        assert 0 <= amount <= most


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (8 * GIB, "8 GiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (GIB - 1, "1 GiB"),
        (MAX_MEMORY, "1048576 TiB"),
    ],
)
def test_memory_is_shown_in_the_largest_unit_it_fills(size, text):
    assert format_memory(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(30, "30 s"), (1800, "30 min"), (5400, "1.5 h"), (86400, "24 h"), (7 * 86400, "7 days")],
)
def test_time_is_shown_in_the_largest_unit_it_fills(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.slow
@given(st.integers(min_value=0, max_value=MAX_MEMORY))
def test_shown_memory_reads_back_to_nearly_the_same(size):
    assert parse_memory(format_memory(size)) == pytest.approx(size, rel=0.06, abs=1)
