"""Limits: what is written in a profile is what the kernel is asked to enforce."""

from __future__ import annotations

from typing import Any

import pytest
from docker.types import HostConfig

from jupyterhub_gpuspawner.engine import limits
from jupyterhub_gpuspawner.engine.limits import GIB, MIB, ResourceLimits, parse_limits
from jupyterhub_gpuspawner.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 * GIB), (" 512 M ", 512 * MIB), (MIB, MIB), (0, 0), (None, None)]
)
def test_sizes_are_read(text: object, size: int | None) -> None:
    assert limits.parse_size("mem_limit", text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", True, -1, float("nan")])
def test_a_size_that_is_not_one_is_refused_with_its_field(text: object) -> None:
    with pytest.raises(ConfigError, match=f"^mem_limit: {text!r} is not"):
        limits.parse_size("mem_limit", text)


def test_memory_without_configured_swap_gets_none() -> None:
    config = limits.host_config(parse_limits({"mem_limit": "8G", "mem_guarantee": "2G"}))
    assert config["mem_limit"] == config["memswap_limit"] == 8 * GIB
    assert config["mem_reservation"] == 2 * GIB


@pytest.mark.parametrize(("swap", "total"), [("2G", 10 * GIB), (0, 8 * GIB), (-1, -1)])
def test_configured_swap_comes_on_top_of_memory(swap: object, total: int) -> None:
    config = limits.host_config(parse_limits({"mem_limit": "8G", "swap": swap}))
    assert config["memswap_limit"] == total


def test_cpu_is_a_quota_so_that_more_than_the_machine_has_is_accepted() -> None:
    config = limits.host_config(parse_limits({"cpu_limit": "1.5"}))
    assert (config["cpu_period"], config["cpu_quota"]) == (100_000, 150_000)
    assert "nano_cpus" not in config


@pytest.mark.parametrize(
    ("values", "shm"),
    [
        ({}, GIB),
        ({"mem_limit": "8G"}, 4 * GIB),
        ({"mem_limit": "8G", "shm_size": "512M"}, 512 * MIB),
    ],
)
def test_shared_memory_is_sized_from_memory(values: dict[str, Any], shm: int) -> None:
    assert limits.host_config(parse_limits(values))["shm_size"] == shm


def test_an_empty_profile_has_a_pids_limit_and_nothing_that_was_not_asked_for() -> None:
    config = limits.host_config(parse_limits({}))
    assert config == {"shm_size": GIB, "pids_limit": limits.DEFAULT_PIDS}


def test_zero_and_none_mean_no_limit() -> None:
    nothing = {"mem_limit": 0, "cpu_limit": 0, "pids_limit": 0, "mem_guarantee": None}
    assert limits.host_config(parse_limits(nothing)) == {"shm_size": GIB}


@pytest.mark.parametrize(
    ("value", "soft", "hard"),
    [
        (65536, 65536, 65536),
        ([-1, -1], -1, -1),
        ("1024:2048", 1024, 2048),
        ("8", 8, 8),
        (-1, -1, -1),
    ],
)
def test_ulimits_are_read(value: object, soft: int, hard: int) -> None:
    parsed = parse_limits({"ulimits": {"nofile": value}})
    assert parsed.ulimits == (("nofile", soft, hard),)
    (ulimit,) = limits.host_config(parsed)["ulimits"]
    assert (ulimit.name, ulimit.soft, ulimit.hard) == ("nofile", soft, hard)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memory": "8G"}, "'memory' is not a limit; allowed: cpu_limit, mem_guarantee, mem_limit"),
        ({"mem_limit": "1M"}, "mem_limit is 1048576; allowed: 6291456 or more"),
        ({"mem_limit": "2G", "mem_guarantee": "3G"}, "allowed: at most mem_limit 2147483648"),
        ({"swap": "1G"}, "swap is 1073741824; allowed: 0 or -1 where mem_limit is not set"),
        ({"mem_limit": "1G", "swap": -2}, "swap: -2 is not between 0 and"),
        ({"cpu_limit": "two"}, "cpu_limit is 'two'; allowed: a number"),
        ({"cpu_limit": True}, "cpu_limit is True; allowed: a number"),
        ({"cpu_limit": -1}, "cpu_limit is -1.0; allowed: 0.01 or more"),
        ({"cpu_limit": float("inf")}, "cpu_limit is inf; allowed: a number"),
        ({"pids_limit": 1.5}, "pids_limit is 1.5; allowed: a whole number"),
        ({"pids_limit": -1}, "pids_limit is -1; allowed: 1 or more"),
        ({"ulimits": [1]}, "ulimits is [1]; allowed: a mapping"),
        ({"ulimits": {"files": 1}}, "ulimits is 'files'; allowed: core, cpu"),
        ({"ulimits": {"nofile": "1:2:3"}}, "ulimits.nofile is '1:2:3'; allowed: a number, a pair"),
        ({"ulimits": {"nofile": [9, 8]}}, "allowed: a soft limit of at most the hard limit"),
        ({"ulimits": {"nofile": None}}, "ulimits.nofile is None; allowed: a number, a pair"),
    ],
)
def test_a_wrong_limit_is_refused_with_field_value_and_what_is_allowed(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_limits(values)
    assert message in str(caught.value)


def test_a_wrong_limit_is_refused_also_when_made_directly() -> None:
    with pytest.raises(ConfigError, match="mem_limit is 1;"):
        ResourceLimits(mem_limit=1)


def test_the_sdk_accepts_every_keyword() -> None:
    everything = parse_limits(
        {"mem_limit": "1G", "mem_guarantee": "1G", "cpu_limit": 2, "ulimits": {"core": 0}}
    )
    keywords = limits.host_config(everything) | limits.isolation()
    assert HostConfig(version="1.41", **keywords)["MemorySwap"] == GIB


def test_a_server_has_no_capability_and_gains_no_privilege_by_default() -> None:
    assert limits.isolation() == {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
