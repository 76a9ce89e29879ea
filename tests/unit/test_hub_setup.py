"""``setup(c)`` adds what a Hub needs and keeps what its config has, however that was written."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.hub import CULLER, SERVICE, SERVICE_SCOPES, USER_SCOPE, setup
from jupyterhub_gpuspawner.scheduler_link import SchedulerLink
from jupyterhub_gpuspawner.service.options import GPUScheduler
from jupyterhub_gpuspawner.swarmspawner import GPUSwarmSpawner

# takes JupyterHub to import
pytestmark = pytest.mark.slow

GPUSWARM_PATH = "jupyterhub_gpuspawner.swarmspawner.GPUSwarmSpawner"


@pytest.fixture
def c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("GPUS_SERVICE_TOKEN", raising=False)
    config = Config()
    config.GPUScheduler.state_dir = str(tmp_path / "state")
    return config


def assigned(section: Any, name: str, items: list[dict[str, Any]]) -> None:
    setattr(section, name, items)


def appended(section: Any, name: str, items: list[dict[str, Any]]) -> None:
    for item in items:
        getattr(section, name).append(item)


def extended(section: Any, name: str, items: list[dict[str, Any]]) -> None:
    getattr(section, name).extend(items)


WRITTEN = pytest.mark.parametrize("write", [assigned, appended, extended])
Write = Callable[[Any, str, list[dict[str, Any]]], None]


def role(c: Any, name: str) -> dict[str, Any]:
    (found,) = [role for role in c.JupyterHub.load_roles if role["name"] == name]
    return dict(found)


def test_an_empty_config_gets_service_roles_spawner_and_a_private_token(c: Any) -> None:
    setup(c)
    (service,) = c.JupyterHub.services
    assert service["name"] == SERVICE
    assert "jupyterhub_gpuspawner.service" in service["command"]
    assert role(c, SERVICE)["scopes"] == list(SERVICE_SCOPES)
    assert role(c, "user")["scopes"] == ["self", USER_SCOPE]
    assert c.JupyterHub.spawner_class == "gpu-docker"
    token = Path(c.GPUSpawnerMixin.token_file)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert c.GPUSpawnerMixin.scheduler_url.endswith("/services/gpus/")
    assert token.read_text().strip() not in json.dumps(c.JupyterHub.services)


@WRITTEN
def test_services_and_roles_of_the_config_stay(c: Any, write: Write) -> None:
    write(c.JupyterHub, "services", [{"name": "other"}])
    write(c.JupyterHub, "load_roles", [{"name": "r"}, {"name": "user", "scopes": ["self", "x"]}])
    setup(c)
    assert [service["name"] for service in c.JupyterHub.services] == ["other", SERVICE]
    assert role(c, "r") == {"name": "r"}
    assert role(c, "user")["scopes"] == ["self", "x", USER_SCOPE]


def test_a_scope_that_is_there_is_not_given_twice(c: Any) -> None:
    c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", USER_SCOPE]}]
    setup(c)
    assert role(c, "user")["scopes"] == ["self", USER_SCOPE]


def test_values_that_the_config_has_are_kept(c: Any) -> None:
    c.JupyterHub.spawner_class = "mine"
    c.JupyterHub.concurrent_spawn_limit = 7
    c.JupyterHub.cleanup_servers = True
    setup(c)
    hub = c.JupyterHub
    assert (hub.spawner_class, hub.concurrent_spawn_limit, hub.cleanup_servers) == ("mine", 7, True)


def test_the_lists_of_the_config_are_not_changed_in_place(c: Any) -> None:
    roles = [{"name": "user", "scopes": ["self"]}]
    c.JupyterHub.load_roles = roles
    setup(c)
    assert roles == [{"name": "user", "scopes": ["self"]}]


def test_the_token_stays_the_same_over_restarts(c: Any) -> None:
    setup(c)
    token = Path(c.GPUSpawnerMixin.token_file).read_text()
    again = Config()
    again.GPUScheduler.state_dir = c.GPUScheduler.state_dir
    setup(again)
    assert Path(again.GPUSpawnerMixin.token_file).read_text() == token


def bad_profile(c: Any) -> None:
    c.GPUDockerSpawner.profile_list = [{"display_name": "x", "spawner_override": {"gpu": 1}}]


def bad_appended_profile(c: Any) -> None:
    c.GPUSpawnerMixin.profile_list.append({"slug": "x"})


def unknown_option(c: Any) -> None:
    c.GPUScheduler.simulat = 4


def bad_option(c: Any) -> None:
    c.GPUScheduler.simulate = "many"


def twice(c: Any) -> None:
    setup(c)


def not_json(c: Any) -> None:
    c.GPUScheduler.static_devices = [object()]


def no_place(c: Any) -> None:
    Path(c.GPUScheduler.state_dir).write_text("a file")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (bad_profile, "c.GPUDockerSpawner.profile_list"),
        (bad_appended_profile, "c.GPUSpawnerMixin.profile_list"),
        (unknown_option, "did you mean simulate"),
        (bad_option, "simulate"),
        (twice, "call setup(c) once"),
        (not_json, "static_devices"),
        (no_place, "state"),
    ],
)
def test_a_mistake_is_one_clear_line_and_the_hub_does_not_start(
    c: Any, mistake: Callable[[Any], None], words: str
) -> None:
    mistake(c)
    with pytest.raises(SystemExit) as end:
        setup(c)
    text = str(end.value)
    assert text.startswith("jupyterhub-gpuspawner: ")
    assert words in text
    assert "\n" not in text


def test_the_engine_s_address_reaches_the_service(c: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///x")
    setup(c)
    environment = c.JupyterHub.services[0]["environment"]
    assert environment["DOCKER_HOST"] == "unix:///x"
    assert "HOME" not in environment


def test_the_spawner_uses_the_token_that_the_service_uses(
    c: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUS_SERVICE_TOKEN", "from-the-environment")
    setup(c)
    link = SchedulerLink(config=Config({"SchedulerLink": dict(c.GPUSpawnerMixin)}))
    assert link.scheduler._headers == {"Authorization": "token from-the-environment"}


def test_a_spawner_without_setup_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"setup\(c\)"):
        assert SchedulerLink().scheduler


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("network_pool", ["10.0.0.1/16"], "10.0.0.1/16"),
        ("network_pool", [], "empty"),
        ("network_size", 31, "24 to 29"),
        ("network_size", "28", "expected an int"),
    ],
)
def test_a_wrong_range_for_users_networks_stops_the_hub_with_one_line(
    c: Any, option: str, value: Any, words: str
) -> None:
    c.GPUDockerSpawner[option] = value
    with pytest.raises(SystemExit, match=words) as failure:
        setup(c)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(("extra", "fits"), [("10.99.0.0/16", True), ("no range", False)])
def test_ranges_for_users_networks_may_be_appended(c: Any, extra: str, fits: bool) -> None:
    c.GPUDockerSpawner.network_pool.append(extra)
    if fits:
        setup(c)
        return
    with pytest.raises(SystemExit, match="no range"):
        setup(c)


@pytest.mark.parametrize("chosen", ["gpu-swarm", GPUSwarmSpawner, GPUSWARM_PATH])
def test_servers_on_a_swarm_get_a_scheduler_of_the_whole_swarm(c: Any, chosen: Any) -> None:
    c.JupyterHub.spawner_class = chosen
    setup(c)
    (service,) = c.JupyterHub.services
    options = json.loads(Path(service["command"][-1]).read_text())
    assert options["GPUScheduler"]["discovery"] == "swarm"


@pytest.mark.parametrize(
    "spawner,discovery,words",
    [
        ("gpu-swarm", "simulated", "with gpu-swarm it must be 'swarm'"),
        ("gpu-docker", "swarm", "set c.JupyterHub.spawner_class = 'gpu-swarm'"),
    ],
)
def test_spawner_and_scheduler_of_different_worlds_do_not_start(
    c: Any, spawner: str, discovery: str, words: str
) -> None:
    c.JupyterHub.spawner_class = spawner
    c.GPUScheduler.discovery = discovery
    with pytest.raises(SystemExit, match=words):
        setup(c)


def test_homes_on_a_swarm_are_not_measured(c: Any) -> None:
    c.JupyterHub.spawner_class = "gpu-swarm"
    c.GPUScheduler.home_warning = "50G"
    with pytest.raises(SystemExit, match=r"home_warning: homes are volumes of the Swarm's nodes"):
        setup(c)


BESIDE = {"companions": {"board": {"image": "lab/board:1"}}}


@pytest.mark.parametrize(
    "words",
    [
        {"spawner_override": BESIDE},
        {
            "profile_options": {
                "with": {
                    "display_name": "With what?",
                    "choices": {"board": {"display_name": "A board", "spawner_override": BESIDE}},
                }
            }
        },
    ],
)
def test_companions_are_refused_on_a_swarm_before_anybody_asks_for_them(
    c: Any, words: dict[str, Any]
) -> None:
    c.GPUDockerSpawner.profile_list = [
        {"display_name": "Plain"},
        {"display_name": "Board", **words},
    ]
    c.JupyterHub.spawner_class = "gpu-swarm"
    with pytest.raises(SystemExit, match=r"profile_list: board: companions: a Swarm has none"):
        setup(c)
    c.JupyterHub.spawner_class = "gpu-docker"
    setup(c)


def test_options_of_the_swarm_spawner_are_checked_at_the_start(c: Any) -> None:
    c.JupyterHub.spawner_class = "gpu-swarm"
    c.GPUSwarmSpawner.home_driverr = "x"
    with pytest.raises(SystemExit, match=r"home_driverr.*did you mean home_driver\?"):
        setup(c)


def test_swarm_itself_bounds_the_processors(c: Any) -> None:
    assert GPUScheduler(config=Config({"GPUScheduler": {"discovery": "swarm"}})).settings() == (
        replace(GPUScheduler().settings(), cpu_overcommit=1.0)
    )


def test_idle_servers_without_gpus_get_the_stock_culler(c: Any) -> None:
    c.JupyterHub.load_roles = [{"name": "mine", "scopes": ["self"]}]
    c.GPUScheduler.cpu_idle_timeout = "12h"
    setup(c)
    culler = next(one for one in c.JupyterHub.services if one["name"] == CULLER)
    assert "--timeout=43200" in culler["command"]
    (role,) = (role for role in c.JupyterHub.load_roles if role["name"] == CULLER)
    assert role["services"] == [CULLER] and "delete:servers" in role["scopes"]
    assert "servers" not in role["scopes"], "it starts nothing"


def test_a_culler_of_the_config_is_not_doubled(c: Any) -> None:
    c.JupyterHub.services = [{"name": CULLER}]
    c.GPUScheduler.cpu_idle_timeout = "12h"
    with pytest.raises(SystemExit, match="there is a service 'idle-culler' already"):
        setup(c)


def test_without_an_idle_time_nothing_is_asked_or_stopped(c: Any) -> None:
    setup(c)
    assert [service["name"] for service in c.JupyterHub.services] == [SERVICE]
    assert "activity_interval" not in c.GPUDockerSpawner
    # a length can end in a warning as well
    assert c.GPUDockerSpawner.warning_interval == 30


@pytest.mark.parametrize("option", [{"idle_timeout": "2h"}, {"group_idle_timeouts": {"a": 600}}])
def test_with_an_idle_time_servers_are_asked_what_their_users_do(
    c: Any, option: dict[str, Any]
) -> None:
    c.GPUScheduler.update(option)
    setup(c)
    assert c.GPUDockerSpawner.activity_interval == 60


def test_what_the_config_says_about_asking_stays(c: Any) -> None:
    c.GPUScheduler.idle_timeout = "2h"
    c.GPUDockerSpawner.activity_interval = 10.0
    c.GPUSwarmSpawner.warning_interval = 0.0
    setup(c)
    assert c.GPUDockerSpawner.activity_interval == 10
    assert "warning_interval" not in c.GPUDockerSpawner
