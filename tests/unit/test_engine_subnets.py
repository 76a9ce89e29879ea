"""Which subnet a user's network gets."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuspawner.engine.subnets import (
    Route,
    covering,
    free_subnets,
    parse_pool,
    parse_routes,
    subnets_of,
)
from jupyterhub_gpuspawner.errors import ConfigError

TABLE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t0000000A\t0102A8C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
eth0\t050AA8C0\t0102A8C0\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""


def nets(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_the_routing_table_is_read_without_default_routes() -> None:
    routes = parse_routes(TABLE)
    assert [(str(route.subnet), route.interface) for route in routes] == [
        ("172.17.0.0/16", "docker0"),
        ("10.0.0.0/8", "tun0"),
        ("192.168.10.5/32", "eth0"),
    ]


def test_a_broken_line_of_the_routing_table_is_left_out() -> None:
    assert parse_routes("head\nshort line\n") == ()


def test_a_pool_is_divided_from_the_seed_on_and_wraps_around() -> None:
    found = free_subnets(nets("10.0.0.0/26"), 28, [], seed=6)
    assert list(map(str, found)) == ["10.0.0.32/28", "10.0.0.48/28", "10.0.0.0/28", "10.0.0.16/28"]


@pytest.mark.parametrize(
    "taken",
    ["10.0.0.32/28", "10.0.0.32/30", "10.0.0.32/27", "10.0.0.47/32", "10.0.0.40/29"],
)
def test_what_is_taken_is_left_out_whatever_its_size(taken: str) -> None:
    found = list(free_subnets(nets("10.0.0.0/26"), 28, nets(taken), seed=0))
    assert found
    assert not any(one.overlaps(IPv4Network(taken)) for one in found)


def test_the_next_range_follows_where_one_is_full() -> None:
    found = free_subnets(nets("10.0.0.0/28", "10.9.0.0/28"), 28, nets("10.0.0.0/8"), seed=0)
    assert list(found) == []
    found = free_subnets(nets("10.0.0.0/28", "11.9.0.0/28"), 28, nets("10.0.0.0/8"), seed=3)
    assert list(map(str, found)) == ["11.9.0.0/28"]


@pytest.mark.slow
@given(
    taken=st.lists(
        st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
            lambda pair: IPv4Network((0x0A000000 + pair[0], pair[1]), strict=False)
        ),
        max_size=20,
    ),
    seed=st.integers(0, 2**32),
    prefix=st.integers(24, 29),
)
def test_free_subnets_are_exactly_those_that_overlap_nothing(
    taken: list[IPv4Network], seed: int, prefix: int
) -> None:
    (pool,) = nets("10.0.0.0/24")
    found = set(free_subnets([pool], prefix, taken, seed))
    expected = {
        one
        for one in pool.subnets(new_prefix=prefix)
        if not any(one.overlaps(other) for other in taken)
    }
    assert found == expected


def test_a_thousand_networks_take_no_noticeable_time() -> None:
    pool = nets("10.213.0.0/16")
    taken = list(islice(pool[0].subnets(new_prefix=28), 4095))
    assert [str(one) for one in free_subnets(pool, 28, taken, seed=0)] == ["10.213.255.240/28"]


@pytest.mark.parametrize(
    ("pool", "prefix", "words"),
    [
        ([], 28, "empty"),
        (["10.0.0.0/33"], 28, "10.0.0.0/33"),
        (["10.0.0.1/16"], 28, "host bits"),
        (["fd00::/64"], 28, "no IPv4 range"),
        (["alice"], 28, "'alice'"),
        (["10.0.0.0/29"], 28, "smaller than one /28"),
        (["10.0.0.0/16", "10.0.3.0/24"], 28, "overlaps another"),
        (["10.0.0.0/16"], 30, "24 to 29"),
        (["10.0.0.0/16"], 8, "24 to 29"),
    ],
)
def test_a_wrong_pool_is_one_clear_line(pool: list[str], prefix: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as failure:
        parse_pool(pool, prefix)
    assert "\n" not in str(failure.value)


def test_a_route_across_a_whole_range_is_named() -> None:
    routes = [
        Route(subnet=IPv4Network("10.0.0.0/8"), interface="tun0"),
        Route(subnet=IPv4Network("10.213.4.0/24"), interface="br0"),
    ]
    words = covering(nets("10.213.0.0/16", "192.168.208.0/20"), routes)
    assert words == ["10.213.0.0/16 lies in 10.0.0.0/8 of tun0"]


def test_only_readable_ipv4_subnets_of_the_engine_count() -> None:
    configs = [{"Subnet": "10.0.0.0/28"}, {"Subnet": "fd00::/64"}, {"Subnet": "?"}, {}, None]
    assert list(subnets_of(configs)) == nets("10.0.0.0/28")
