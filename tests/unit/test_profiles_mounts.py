"""What a profile mounts into its servers."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.profiles import parse_profiles

NFS = {"Name": "local", "Options": {"type": "nfs", "device": ":/data", "o": "addr=10.0.0.5"}}


def parse(override, **options):
    profile = {"display_name": "Lab", "slug": "lab", "spawner_override": override}
    return parse_profiles([{**profile, **options}])


def resolve(override, **options):
    return parse(override, **options).resolve({"profile": "lab"})


def test_volumes_are_named_as_the_spawner_names_them():
    volumes = {"data": "/data", "/srv/samples": {"bind": "/samples", "mode": "ro"}}
    assert resolve({"volumes": volumes}).volumes == volumes


def test_mounts_are_of_any_kind():
    found = resolve(
        {
            "mounts": [
                {"type": "tmpfs", "target": "/scratch", "tmpfs_size": "4M"},
                {"source": "nfs-{username}", "target": "/nfs", "driver_config": NFS},
                {"type": "bind", "source": "/srv", "target": "/srv", "read_only": True},
            ]
        }
    ).mounts
    assert found["/scratch"] == {
        "type": "tmpfs", "source": "", "target": "/scratch", "tmpfs_size": 4 * 2**20,
    }  # fmt: skip
    assert found["/nfs"]["type"] == "volume"
    assert found["/srv"]["read_only"] is True


def test_a_choice_adds_mounts_and_replaces_the_one_at_its_path():
    def at(source, target):
        return {"mounts": [{"source": source, "target": target}]}

    choices = {"big": {"display_name": "Big", "spawner_override": at("big", "/data")}}
    option = {"display_name": "Data", "choices": choices}
    override = {"mounts": [*at("small", "/data")["mounts"], *at("tools", "/tools")["mounts"]]}
    found = resolve(override, profile_options={"data": option}).mounts
    assert {path: one["source"] for path, one in found.items()} == {
        "/data": "big",
        "/tools": "tools",
    }


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"volumes": ["data"]}, "must be a mapping"),
        ({"volumes": {"data": "data"}}, "want an absolute path in the container"),
        ({"volumes": {"": "/data"}}, "want the name of a volume"),
        ({"volumes": {"data": {"bind": "/data", "mode": "rx"}}}, "allowed: rw, ro"),
        ({"mounts": "data"}, "must be a list"),
        ({"mounts": [{"source": "data"}]}, '"type", "source" and "target"'),
        ({"mounts": [{"type": "npipe", "source": "x", "target": "/x"}]}, "allowed: volume, bind"),
        ({"mounts": [{"type": "bind", "source": "x", "target": "/x"}]}, "is no absolute path"),
        ({"mounts": [{"type": "tmpfs", "source": "x", "target": "/x"}]}, "has no source"),
        ({"mounts": [{"target": "/x"}]}, "any other mount has one"),
        ({"mounts": [{"source": "x", "target": "x"}]}, "want an absolute path"),
        ({"mounts": [{"source": "x", "target": "/x", "tmpfs_size": 1}]}, "no 'tmpfs_size'"),
        ({"mounts": [{"source": n, "target": "/x"} for n in "ab"]}, "two mounts at one path"),
        ({"mounts": [{"source": "x", "target": "/x", "driver_config": {}}]}, "want {\"Name\""),
        (
            {"mounts": [{"source": "x", "target": "/x",
                         "driver_config": {"Name": "a", "Options": {"b": 1}}}]},
            "a mapping of texts",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_when_the_hub_starts(override, told):
    with pytest.raises(ConfigError) as error:
        parse(override)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "override", [{"volumes": {"{value}": "/data"}}, {"volumes": {"d": "/{value}"}}]
)
def test_no_text_of_a_users_names_a_mount(override):
    unlisted = {"enabled": True, "validation_regex": ".*", "spawner_override": override}
    option = {"display_name": "Data", "unlisted_choice": unlisted}
    with pytest.raises(ConfigError) as error:
        parse({}, profile_options={"data": option})
    assert "may name what is mounted" in str(error.value)
