"""A scheduler that the Hub does not start: what the Hub's config, it and the two together do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_gpuspawner import client, external
from jupyterhub_gpuspawner.errors import ConfigError, SchedulerUnavailable
from jupyterhub_gpuspawner.hub import only_looking, setup
from jupyterhub_gpuspawner.service import __main__ as program
from jupyterhub_gpuspawner.service import hub_facts
from jupyterhub_gpuspawner.service.supervisor import EXIT_CONFIG

# real sockets, files or processes
pytestmark = pytest.mark.slow

SERVICE_TOKEN, HUB_TOKEN = "s" * 32, "h" * 32


@pytest.fixture
def c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GPUS_SERVICE_TOKEN", SERVICE_TOKEN)
    monkeypatch.setenv("GPUS_HUB_TOKEN", HUB_TOKEN)
    config = Config()
    config.GPUScheduler.state_dir = str(tmp_path / "state")
    config.GPUSpawnerMixin.scheduler_url = "http://scheduler:8750"
    return config


# -- the Hub's side ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://scheduler:8750",
        "http://scheduler:8750/",
        "http://scheduler:8750/services/gpus/",
    ],
)
def test_the_hub_starts_nothing_and_has_a_route_and_a_token_for_it(
    c: Any, tmp_path: Path, url: str
) -> None:
    c.GPUSpawnerMixin.scheduler_url = url
    setup(c)
    (service,) = c.JupyterHub.services
    assert service["url"] == "http://scheduler:8750"
    assert service["api_token"] == HUB_TOKEN
    assert "command" not in service and service["oauth_no_confirm"]
    assert c.GPUSpawnerMixin.scheduler_url == "http://scheduler:8750/services/gpus/"
    # neither options for a scheduler that nobody starts, nor a token that nobody uses
    assert list((tmp_path / "state").iterdir()) == []


def test_the_culler_of_such_a_hub_has_the_token_that_is_in_no_file(c: Any) -> None:
    pytest.importorskip("jupyterhub_idle_culler")
    c.GPUScheduler.cpu_idle_timeout = "1h"
    setup(c)
    (environment,) = [one["environment"] for one in c.JupyterHub.services if "command" in one]
    assert environment["GPUS_SERVICE_TOKEN"] == SERVICE_TOKEN
    assert environment["GPUS_CULLER_API"] == "http://scheduler:8750/services/gpus/api/"


def test_a_hub_that_is_only_looked_at_tells_nobody_and_writes_nothing(
    c: Any, tmp_path: Path
) -> None:
    with only_looking():
        setup(c)
    assert not (tmp_path / "state").exists() and not external._HELLOS


def test_its_options_are_not_matched_with_the_spawner(c: Any) -> None:
    c.JupyterHub.spawner_class = "gpu-swarm"
    c.GPUScheduler.discovery = "auto"
    setup(c)
    assert c.GPUScheduler.discovery == "auto"


@pytest.mark.parametrize("token", ["", "short", "ü" * 20, "a" * 20 + "\n" + "b" * 20])
def test_without_a_good_token_for_the_hub_it_does_not_start(
    c: Any, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GPUS_HUB_TOKEN", token)
    with pytest.raises(SystemExit, match=r"^jupyterhub-gpuspawner: GPUS_HUB_TOKEN: .*16") as end:
        setup(c)
    assert not token or token not in str(end.value)


@pytest.mark.parametrize("url", ["scheduler:8750", "unix:///run/x", "http://", "http://a:b@c:1"])
def test_an_address_that_is_none_is_one_line(c: Any, url: str) -> None:
    c.GPUSpawnerMixin.scheduler_url = url
    with pytest.raises(SystemExit, match="scheduler_url") as end:
        setup(c)
    assert "\n" not in str(end.value)


async def test_a_hub_says_hello_until_it_is_heard(c: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str, Any]] = []
    done = asyncio.Event()

    async def call(self: Any, method: str, path: str, body: Any) -> dict[str, Any]:
        heard.append((method, path, body))
        if len(heard) < 3:
            raise SchedulerUnavailable("not yet")
        done.set()
        return {}

    monkeypatch.setattr(client.SchedulerClient, "_call", call)
    monkeypatch.setattr(external, "RETRY_FIRST", 0.0)
    setup(c)
    await asyncio.wait_for(done.wait(), 5)
    assert heard == [("POST", "internal/hub", {"boot_id": client.BOOT_ID})] * 3
    await asyncio.wait_for(asyncio.gather(*external._HELLOS), 5)


# -- the scheduler's side ------------------------------------------------------------------------


def known(**more: str) -> dict[str, str]:
    return {
        "GPUS_HUB_API_URL": "http://hub:8081/hub/api",
        "GPUS_HUB_TOKEN": HUB_TOKEN,
        **more,
    }


def test_it_knows_of_the_hub_what_one_that_the_hub_starts_knows() -> None:
    environ = known(GPUS_PUBLIC_URL="https://gpus.example.org/")
    assert hub_facts.tell(environ)
    assert environ["JUPYTERHUB_API_URL"] == "http://hub:8081/hub/api"
    assert environ["JUPYTERHUB_API_TOKEN"] == HUB_TOKEN
    assert environ["JUPYTERHUB_CLIENT_ID"] == "service-gpus"
    assert environ["JUPYTERHUB_BASE_URL"] == "/"
    assert environ["JUPYTERHUB_SERVICE_PREFIX"] == "/services/gpus/"
    assert json.loads(environ["JUPYTERHUB_OAUTH_ACCESS_SCOPES"]) == ["access:services!service=gpus"]
    assert environ["JUPYTERHUB_PUBLIC_HUB_URL"] == "https://gpus.example.org/hub/"


def test_a_hub_below_a_path_is_understood_and_what_is_set_stays() -> None:
    environ = known(
        GPUS_HUB_API_URL="http://hub:8081/lab/hub/api/", JUPYTERHUB_CLIENT_ID="service-mine"
    )
    assert hub_facts.tell(environ)
    assert environ["JUPYTERHUB_BASE_URL"] == "/lab/"
    assert environ["JUPYTERHUB_SERVICE_PREFIX"] == "/lab/services/gpus/"
    assert environ["JUPYTERHUB_CLIENT_ID"] == "service-mine"
    assert "JUPYTERHUB_PUBLIC_HUB_URL" not in environ


def test_without_a_hub_nothing_is_made_up() -> None:
    environ: dict[str, str] = {"GPUS_PUBLIC_URL": "https://gpus.example.org"}
    assert not hub_facts.tell(environ)
    assert environ == {"GPUS_PUBLIC_URL": "https://gpus.example.org"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"GPUS_HUB_TOKEN": HUB_TOKEN}, "GPUS_HUB_API_URL is not set"),
        ({"GPUS_HUB_API_URL": "http://hub:8081/hub/api"}, "GPUS_HUB_TOKEN is not set"),
        (known(GPUS_HUB_API_URL="hub:8081/hub/api"), "want such as"),
        (known(GPUS_HUB_API_URL="http://hub:8081"), "want such as"),
        (known(GPUS_HUB_API_URL="http:///hub/api"), "want such as"),
    ],
)
def test_half_a_hub_is_one_line(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        hub_facts.tell(environ)
    assert HUB_TOKEN not in str(error.value)


def test_a_wrong_address_ends_the_program_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in known(GPUS_HUB_API_URL="http://hub:8081").items():
        monkeypatch.setenv(name, value)
    assert program.main(["--unmanaged"]) == EXIT_CONFIG
    assert "GPUS_HUB_API_URL" in caplog.text and "\n" not in caplog.messages[-1]
