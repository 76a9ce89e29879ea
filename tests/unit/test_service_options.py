"""The service's options: what is wrong is one clear line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.scheduler.models import Limits, Placement
from jupyterhub_gpuspawner.scheduler.policy import Budget
from jupyterhub_gpuspawner.service import app, service_token
from jupyterhub_gpuspawner.service.app import SchedulerApp
from jupyterhub_gpuspawner.service.options import GPUScheduler


def options(**values: Any) -> GPUScheduler:
    return GPUScheduler(config=Config({"GPUScheduler": values}))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"simulat": 4}, "GPUScheduler.simulat: there is no such option; did you mean simulate?"),
        ({"claim_engine": False}, "two schedulers would give out the same GPUs"),
        ({"zzz": 1}, "GPUScheduler.zzz: there is no such option; known: "),
        ({"discovery": "magic"}, "'magic'; allowed: auto, nvml, simulated, static, none"),
        ({"simulate": -1}, "whole number 1 to 256, not -1"),
        ({"simulate": "four"}, "simulate"),
        ({"placement": "worst_fit"}, "'worst_fit'; allowed: best_fit, fgd"),
        ({"spread_pools": ["gold"]}, "there is no pool 'gold' in node_pools; there are none"),
        ({"simulate_board": "cray"}, "'cray'; allowed: dgx-1v, dgx-a100, hgx-h100, dgx-2"),
        ({"discovery": "simulated"}, "whole number 1 to 256, not 0"),
        ({"static_devices": [{"id": 0}], "discovery": "static"}, "indexes change"),
        ({"memory_reserve": 1.0}, "1.0; want 0 to below 1"),
        ({"memory_reserve": float("nan")}, "nan; want 0 to below 1"),
        ({"cpu_overcommit": 0.0}, "0.0; want a number above 0 or None"),
        ({"user_gpu_limit": -1}, "-1; want 0 or more, or None"),
        ({"user_gpu_limits": {"alice": -1}}, "user_gpu_limits"),
        ({"group_gpu_limits": {"g": "many"}}, "group_gpu_limits"),
        ({"queued_per_user": 0}, "queued_per_user"),
        ({"queued_total": 0}, "queued_total"),
        ({"request_rate": -1}, "request_rate"),
        ({"request_rate": float("nan")}, "request_rate"),
        ({"request_burst": 0}, "request_burst"),
        ({"shares": {"": {}}}, "a share needs the name of a group"),
        ({"shares": {"lab": {"quotas": 1}}}, "lab: there is no 'quotas'; known: parent, weight"),
        ({"shares": {"lab": {"quota": 1.5}}}, "lab: quota is 1.5"),
        ({"shares": {"lab": {"quota": True}}}, "lab: quota is True"),
        ({"shares": {"lab": {"borrow": -1}}}, "lab: borrow is -1; want 0 or more"),
        ({"shares": {"lab": {"weight": 0}}}, "lab: weight is 0; want a number above 0"),
        ({"shares": {"lab": {"parent": "uni"}}}, "shares lab: the parent is no share"),
        ({"shares": {"lab": {"parent": "lab"}}}, "the parent is no share, or a part of itself"),
        ({"usage_half_life": 0}, "usage_half_life"),
        ({"age_guard": "long"}, "'long' is not a length of time"),
        ({"bind_deadline": "soon"}, "'soon' is not a length of time"),
        ({"reconcile_interval": 0}, "reconcile_interval"),
        ({"node_name": "a b"}, "'a b'; want 1 to 64 of A-Za-z0-9_.-"),
        ({"url": "https://127.0.0.1:1"}, "want http://ADDRESS:PORT"),
        ({"url": "http://127.0.0.1:99999"}, "want http://ADDRESS:PORT"),
        ({"url": "127.0.0.1:8750"}, "want http://ADDRESS:PORT"),
        ({"user_gpu_budget": {"hours": 3}}, "want hours and period, e.g. {"),
        ({"user_gpu_budget": {"hours": -1, "period": "7d"}}, "hours is -1; want 0 or more"),
        ({"user_gpu_budgets": {"ann": {"hours": 1, "period": "1m"}}}, "want at least an hour"),
        ({"user_gpu_budgets": {"ann": 7}}, "user_gpu_budgets: ann is 7; want hours and period"),
        ({"group_gpu_budgets": {"lab": None}}, "group_gpu_budgets: lab is None; want hours"),
        ({"group_gpu_budgets": {"lab": {"hours": 1, "period": "x"}}}, "lab: period: 'x' is not"),
        ({"node_pools": {"a100": []}}, "want a name and a list of names of machines"),
        ({"node_pools": {"": ["n1"]}}, "want a name and a list of names of machines"),
        ({"node_pools": {"a100": "n1"}}, "node_pools"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        options(**values)
    assert says in str(wrong.value)
    assert str(wrong.value).startswith("GPUScheduler")
    assert "\n" not in str(wrong.value)


def test_every_option_has_a_manual_with_a_short_first_line() -> None:
    for name, trait in GPUScheduler.class_traits(config=True).items():
        first, _, rest = trait.help.partition("\n")
        assert 0 < len(first) <= 60, name
        assert ".. versionadded::" in rest, name


def test_the_scheduler_gets_the_numbers() -> None:
    settings = options(
        user_gpu_limit=2,
        user_gpu_limits={"alice": 4},
        group_gpu_limits={"students": 6},
        queued_per_user=3,
        queued_total=50,
        memory_reserve=0.1,
        cpu_overcommit=4,
        bind_deadline="1m",
    ).settings()
    assert settings.limits == Limits(
        per_user=2, users={"alice": 4}, groups={"students": 6}, queued_per_user=3, queued_total=50
    )
    assert (settings.memory_reserve, settings.cpu_overcommit) == (0.1, 4.0)
    assert settings.bind_deadline == 60.0
    assert settings.reclaim_warning is None
    assert options(reclaim_warning="30m").settings().reclaim_warning == 1800.0


def test_budgets_reach_the_scheduler() -> None:
    limits = (
        options(
            user_gpu_budget={"hours": 100, "period": "7d"},
            user_gpu_budgets={"ann": {"hours": 0.5, "period": 3600}, "root": None},
            group_gpu_budgets={"lab": {"hours": 7, "period": "30d"}},
        )
        .settings()
        .limits
    )
    assert limits.user_budget == Budget(hours=100.0, period=7 * 86400.0)
    assert limits.user_budgets == {"ann": Budget(hours=0.5, period=3600.0), "root": None}
    assert limits.group_budgets == {"lab": Budget(hours=7.0, period=30 * 86400.0)}
    assert options().settings().limits.user_budget is None


def test_pools_of_machines_reach_the_scheduler() -> None:
    settings = options(node_pools={"a100": ["gpu-0*", "gpu-17"]}).settings()
    assert settings.pools == {"a100": ("gpu-0*", "gpu-17")}
    assert options().settings().pools == {}


def test_the_hub_s_address_is_used_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_URL", raising=False)
    assert options().bind() == ("127.0.0.1", 8750)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_URL", "http://127.0.0.1:9999/services/gpus/")
    assert options().bind() == ("127.0.0.1", 9999)
    assert options(url="http://127.0.0.2:1").bind() == ("127.0.0.2", 1)


def test_paths_have_their_defaults_in_the_state_directory(tmp_path: Path) -> None:
    found = options(state_dir=str(tmp_path))
    assert found.ledger == f"sqlite:///{tmp_path}/ledger.sqlite"
    assert found.token_path == tmp_path / "service-token"


def test_a_config_file_that_is_wrong_or_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(options: GPUScheduler) -> int:
        raise AssertionError("it must not start")

    monkeypatch.setattr(app, "serve", serve)
    path = tmp_path / "scheduler.json"
    with pytest.raises(ConfigError, match="there is no such file"):
        SchedulerApp.launch(["--config", str(path)])
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"--config .*scheduler\.json: "):
        SchedulerApp.launch(["--config", str(path)])
    path.write_text(json.dumps({"GPUScheduler": {"memory_reserve": 2}}))
    with pytest.raises(ConfigError, match="memory_reserve"):
        SchedulerApp.launch(["--config", str(path)])
    with pytest.raises(ConfigError, match="unknown argument 'serve'"):
        SchedulerApp.launch(["serve"])


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    token = service_token.service_token(path)
    assert len(token) == 64
    assert service_token.service_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["token"]


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    service_token.service_token(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        service_token.service_token(path)


@pytest.mark.parametrize("content", ["", "short", "ü" * 40])
def test_a_token_that_is_too_weak_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="at least 16 ASCII"):
        service_token.service_token(path)


def test_the_environment_replaces_the_token_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(service_token.ENVIRONMENT, "e" * 20)
    assert service_token.service_token(tmp_path / "token") == "e" * 20
    assert not (tmp_path / "token").exists()


def test_the_fairness_options_become_the_policy() -> None:
    fairness = (
        options(
            shares={"physics": {"quota": 4}, "theory": {"parent": "physics", "borrow": 2}},
            group_priorities={"guests": -1},
            usage_half_life="1d",
            age_guard=None,
            fair_share=False,
            backfill=False,
        )
        .settings()
        .fairness
    )
    assert [(s.name, s.parent, s.quota, s.cap) for s in fairness.shares] == [
        ("physics", "", 4, None),
        ("theory", "physics", 0, 2),
    ]
    assert fairness.priorities == {"guests": -1}
    assert (fairness.half_life, fairness.age_guard) == (86400.0, None)
    assert not fairness.by_usage and not fairness.backfill


def test_placement_and_spread_pools_become_the_policy() -> None:
    chosen = options(placement="fgd", node_pools={"a": ["n*"]}, spread_pools=["a", "*"])
    assert chosen.settings().placement == Placement(gradient=True, spread=("a", "*"))
    assert options().settings().placement == Placement()
