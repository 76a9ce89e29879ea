"""Every option with wrong values: one clear line that names it, and the Hub does not start.

The classes and their options are found by looking, so that a new one is tried by itself.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from traitlets import Bool, TraitType
from traitlets.config import Config, Configurable

import jupyterhub_gpuspawner
from jupyterhub_gpuspawner.hub import setup

# real sockets, files or processes
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = jupyterhub_gpuspawner.__name__

#: of each kind one: no option takes all of them, and each is wrong for most
WRONG: list[Any] = [
    "wr\0ng",
    "line\nline",
    -987654321,
    float("nan"),
    float("inf"),
    ["not", {"a": "thing"}],
    {"no": {"such": "word"}},
    {1: object()},
    object(),
    True,
    None,
    "x" * 5000,
]


def configurables() -> Iterator[type[Configurable]]:
    """Every class of ours that has options of its own."""
    # migrations run by themselves; oauthenticator takes seconds to import, and an authenticator's
    # options are the Hub's to check
    left_out = re.compile(r"\.migrations|\.__main__$|\.provider_login$")
    for module in pkgutil.walk_packages(jupyterhub_gpuspawner.__path__, f"{PACKAGE}."):
        if not left_out.search(module.name):
            importlib.import_module(module.name)
    seen: set[type] = set()
    waiting: list[type] = [Configurable]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            if cls not in seen:
                seen.add(cls)
                waiting.append(cls)
                if cls.__module__.startswith(f"{PACKAGE}."):
                    yield cls


def options() -> list[tuple[str, str]]:
    """(section as an admin writes it, name) of each option that is defined in this package."""
    found = set()
    for cls in configurables():
        for name, trait in cls.class_traits(config=True).items():
            home = trait.this_class
            if home is None or not home.__module__.startswith(f"{PACKAGE}."):
                continue
            if cls.__name__ in ("GPUDockerSpawner", "GPUSpawnerMixin", "GPUScheduler"):
                found.add((cls.__name__, name))
    return sorted(found)


def trait_of(section: str, name: str) -> TraitType[Any, Any]:
    (cls,) = [cls for cls in configurables() if cls.__name__ == section]
    return cls.class_traits()[name]


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """``setup(c)`` with one option set: what it ends with, None where it accepts it."""
    monkeypatch.delenv("GPUS_SERVICE_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)

    def attempt(section: str, name: str, value: Any) -> str | None:
        c = Config()
        c.GPUScheduler.state_dir = str(tmp_path / "state")
        c[section][name] = value
        try:
            setup(c)
        except SystemExit as end:
            return str(end.code)
        return None

    return attempt


def test_the_options_are_found() -> None:
    assert len(options()) > 50
    assert ("GPUDockerSpawner", "stop_grace") in options()
    assert ("GPUSpawnerMixin", "scheduler_url") in options()
    assert ("GPUScheduler", "request_rate") in options()
    kept = {"GPUDockerSpawner", "GPUSpawnerMixin", "GPUScheduler"}
    #: parts of the above, or another program
    parts = {"LimitTraits", "SchedulerLink", "SchedulerApp", "_Base"}
    parts |= {
        "PolicyOptions",
        "FairnessOptions",
        "PlaceOptions",
        "BudgetOptions",
        "HomeOptions",
        "IdleOptions",
        "ActivityTraits",
        "AgentOptions",
        "WarningTraits",
        "StorageTraits",
        "SwarmTraits",
        "UserNetworkTraits",
    }
    names = {cls.__name__ for cls in configurables() if cls.class_traits(config=True)}
    assert names - kept - parts <= {"GPUSwarmSpawner"}, "a new class of options: try it too"


@pytest.mark.parametrize(("section", "name"), options(), ids=lambda part: part)
def test_a_wrong_value_is_one_line_with_the_option_and_the_value(
    attempt: Callable[..., str | None], section: str, name: str
) -> None:
    refused = 0
    for value in WRONG:
        said = attempt(section, name, value)
        if said is None:
            continue
        refused += 1
        assert said.startswith("jupyterhub-gpuspawner: "), said
        assert "\n" not in said
        assert "\0" not in said
        assert f"{section}.{name}" in said or (section in said and name in said), said
        assert len(said) < 1500, (name, len(said))
    assert refused >= 5, f"{section}.{name} takes nearly everything"


@pytest.mark.parametrize(("section", "name"), options(), ids=lambda part: part)
def test_numbers_that_are_none_are_refused_everywhere(
    attempt: Callable[..., str | None], section: str, name: str
) -> None:
    assert attempt(section, name, float("nan"))
    if not isinstance(trait_of(section, name), Bool):
        assert attempt(section, name, True)


@pytest.mark.parametrize(
    ("section", "name", "value", "allowed"),
    [
        ("GPUDockerSpawner", "stop_grace", -1, "0"),
        ("GPUDockerSpawner", "engine_threads", 0, "1"),
        ("GPUDockerSpawner", "home_path", "jovyan", "absolute path"),
        ("GPUDockerSpawner", "home_path", "/home:/etc", "absolute path"),
        ("GPUDockerSpawner", "swap", "many", "int"),
        ("GPUDockerSpawner", "swap", -2, "between 0"),
        ("GPUDockerSpawner", "ulimits", {"files": 1}, "nofile"),
        ("GPUDockerSpawner", "remove", False, "want True"),
        ("GPUDockerSpawner", "mem_limit", "much", "int"),
        ("Spawner", "mem_limit", "much", "int"),
        ("DockerSpawner", "pull_policy", "perhaps", "ifnotpresent"),
        ("GPUSpawnerMixin", "hub_name", "", "1 to 255"),
        ("GPUSpawnerMixin", "scheduler_url", "ftp://x", "http://"),
        ("GPUScheduler", "docker_host", "/var/run/docker.sock", "unix://"),
        ("GPUScheduler", "ledger_url", "ledger.sqlite", "sqlite:////"),
        ("GPUScheduler", "discovery", "guess", "nvml"),
    ],
)
def test_the_line_says_what_is_allowed(
    attempt: Callable[..., str | None], section: str, name: str, value: Any, allowed: str
) -> None:
    said = attempt(section, name, value)
    assert said is not None
    assert allowed in said
    assert name in said


@pytest.mark.parametrize("section", ["GPUDockerSpawner", "GPUSpawnerMixin", "GPUScheduler"])
def test_a_misspelt_option_is_refused_with_the_right_word(
    attempt: Callable[..., str | None], section: str
) -> None:
    name = "state_dirr" if section == "GPUScheduler" else "profile_lists"
    said = attempt(section, name, [])
    assert said is not None
    assert f"{section}.{name}: there is no such option" in said
    assert name[:-1] in said


def test_right_values_of_every_kind_are_accepted(
    attempt: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUS_HUB_TOKEN", "h" * 32)
    for section, name, value in (
        ("GPUDockerSpawner", "mem_limit", "2G"),
        ("GPUDockerSpawner", "mem_limit", lambda spawner: "2G"),
        ("GPUDockerSpawner", "swap", -1),
        ("GPUDockerSpawner", "shm_size", None),
        ("GPUDockerSpawner", "ulimits", {"memlock": -1}),
        ("GPUDockerSpawner", "environment", {"A": "b"}),
        ("GPUDockerSpawner", "extra_host_config", {"runtime": "runc"}),
        ("GPUDockerSpawner", "home_path", ""),
        ("DockerSpawner", "network_name", "mine"),
        ("Spawner", "cpu_limit", 2.5),
        ("GPUSpawnerMixin", "scheduler_url", "http://[::1]:8750/services/gpus/"),
        ("GPUScheduler", "queued_total", None),
        ("GPUScheduler", "docker_host", "unix:///run/docker.sock"),
    ):
        assert attempt(section, name, value) is None, (section, name, value)


# -- environment variables ------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Run the shipped configuration: what it ends with, None where nothing is wrong."""
    for name in [name for name in os.environ if name.startswith("GPUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    code = compile((ROOT / "jupyterhub_config.py").read_text(), "jupyterhub_config.py", "exec")

    def run(**variables: str) -> str | None:
        known = {"GPUS_STATE_DIR": str(tmp_path / "state"), "GPUS_PASSWORD": "long enough"}
        for name, value in {**known, **variables}.items():
            monkeypatch.setenv(name, value)
        try:
            exec(code, {"get_config": Config})
        except SystemExit as end:
            return str(end.code)
        return None

    return run


def test_the_shipped_configuration_works_as_it_is(shipped: Callable[..., str | None]) -> None:
    assert shipped() is None


def test_the_shipped_configuration_works_on_a_swarm(shipped: Callable[..., str | None]) -> None:
    swarm = {"GPUS_SPAWNER": "swarm", "GPUS_NETWORK": "lab", "GPUS_VOLUME_NODES": '{"data": "n2"}'}
    assert shipped(**swarm, GPUS_LOCAL_VOLUMES="tie") is None
    line = shipped(**swarm, GPUS_LOCAL_VOLUMES="maybe")
    assert line == "GPUS_LOCAL_VOLUMES is 'maybe'; want one of refuse, tie, each"
    line = shipped(**swarm, GPUS_LOCAL_VOLUMES="", GPUS_DISCOVERY="nvml")
    assert line is not None and "with gpu-swarm it must be 'swarm'" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GPUS_PORT", "http"),
        ("GPUS_PORT", "70000"),
        ("GPUS_HUB_PORT", "-1"),
        ("GPUS_PROXY_API_PORT", "1.5"),
        ("GPUS_SERVICE_PORT", "x"),
        ("GPUS_BIND", "everywhere"),
        ("GPUS_BRIDGE_IP", "bridge"),
        ("GPUS_PASSWORD", "short"),
        ("GPUS_ADMIN_PASSWORD", "short"),
        ("GPUS_DISCOVERY", "guess"),
        ("GPUS_SPAWNER", "kubernetes"),
        ("GPUS_AGENT_KEY_FILE", "/not/there"),
        ("GPUS_SIMULATE", "257"),
        ("GPUS_SIMULATE", "many"),
        ("GPUS_USER_LIMIT", "-1"),
        ("GPUS_STATE_DIR", "/dev/null"),
        ("GPUS_SERVICE_TOKEN", "short"),
        ("GPUS_SERVICE_TOKEN", "ünïcode-ünïcode-ünïcode"),
    ],
)
def test_a_wrong_variable_is_one_line_by_name(
    shipped: Callable[..., str | None], name: str, value: str
) -> None:
    line = shipped(**{name: value})
    assert line is not None
    assert "\n" not in line
    assert name in line or ("discovery" in line and value in line)


@pytest.mark.parametrize("value", ["", " ", "12"])
def test_numbers_of_the_environment_are_read(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from jupyterhub_gpuspawner import environment

    monkeypatch.setenv("GPUS_SIMULATE", value)
    assert environment.number("GPUS_SIMULATE", 7) == (12 if value == "12" else 7)


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "٣", "65536", "1e3", "0x10", "9" * 5000])
def test_ports_of_the_environment_are_checked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from jupyterhub_gpuspawner import environment

    monkeypatch.setenv("GPUS_PORT", value)
    with pytest.raises(
        SystemExit, match=r"^GPUS_PORT is '.*'; want a whole number from 1 to 65535$"
    ):
        environment.port("GPUS_PORT", 8000)


@pytest.mark.parametrize("value", ["localhost", "1.2.3", "::g", "1.2.3.4:80", "a\nb"])
def test_addresses_of_the_environment_are_checked(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    from jupyterhub_gpuspawner import environment

    monkeypatch.setenv("GPUS_BIND", value)
    with pytest.raises(SystemExit) as end:
        environment.address("GPUS_BIND", "127.0.0.1")
    assert re.fullmatch(r"GPUS_BIND is '.*'; want an IP address, such as 127.0.0.1", str(end.value))


# -- options of the service's command ---------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--nonsense"], "nonsense"),
        (["stray"], "stray"),
        (["--config", "/nowhere/at-all.json"], "/nowhere/at-all.json"),
        (["--GPUScheduler.simulate=many"], "simulate"),
        (["--GPUScheduler.discovery=guess"], "guess"),
        (["--GPUScheduler.url=ftp://x"], "url"),
        (["--GPUScheduler.statedir=/tmp"], "statedir"),
    ],
)
def test_a_wrong_option_of_the_service_is_one_line(
    tmp_path: Path, arguments: list[str], word: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "jupyterhub_gpuspawner.service", "--scheduler", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 78, ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    assert word in line
    assert "Traceback" not in line


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ({"data": "data"}, "want an absolute path in the container, not 'data'"),
        ({"": "/data"}, "want the name of a volume or an absolute path"),
        ({"data": 7}, 'want a path in the container, or {"bind": PATH, "mode": "ro"}; not 7'),
        ({"data": {"mode": "ro"}}, "want a path in the container"),
        ({"data": {"bind": "/d", "modes": "ro"}}, "want a path in the container"),
        ({"data": {"bind": "/d", "mode": "r"}}, "mode is 'r'; allowed: rw, ro, z, Z"),
    ],
)
def test_a_wrong_group_volume_is_named_with_its_group(
    attempt: Callable[..., str | None], mounts: dict[str, Any], words: str
) -> None:
    said = attempt("GPUDockerSpawner", "group_volumes", {"vision": mounts})
    assert said is not None
    assert "group 'vision'" in said
    assert words in said


def test_homes_on_a_swarm_can_not_be_deleted_with_their_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    c = Config()
    c.JupyterHub.spawner_class = "gpu-swarm"
    c.GPUSwarmSpawner.delete_homes = True
    with pytest.raises(SystemExit, match="delete_homes=True: homes are volumes of the nodes"):
        setup(c)
