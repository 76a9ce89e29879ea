"""The verbs, limits and devices on a real engine: what Docker and the kernel really do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import containers, devices, labels, limits, observe, volumes
from jupyterhub_gpuspawner.engine.containers import ContainerSpec
from jupyterhub_gpuspawner.engine.devices import Injection
from jupyterhub_gpuspawner.engine.faults import translate
from jupyterhub_gpuspawner.engine.labels import Identity
from jupyterhub_gpuspawner.errors import DeviceMissing, EngineConflict, ImageMissing
from jupyterhub_gpuspawner.scheduler.models import Device
from tests.testbed.images import ensure_base

SLEEP = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient) -> str:
    return ensure_base(docker_client)


@pytest.fixture
def ledger() -> str:
    return uuid.uuid4().hex


Make = Callable[..., ContainerSpec]


@pytest.fixture
def make(docker_client: docker.DockerClient, image: str, ledger: str) -> Iterator[Make]:
    """Make specs of one ledger; what was created from them is removed at the end."""

    def spec(
        *command: str, user: str = "alice", given: tuple[Device, ...] = (), **host: Any
    ) -> ContainerSpec:
        injection = Injection.CDI
        identity = Identity(
            ledger=ledger,
            lease=f"lease-{user}",
            user=user,
            devices=tuple(device.id for device in given),
        )
        return ContainerSpec(
            name=volumes.container_name(user, "", ledger),
            image=image,
            labels=labels.server_labels(identity),
            host={**devices.host_config(given, injection), **limits.isolation(), **host},
            options={
                "command": list(command or SLEEP),
                "environment": devices.environment(given, injection),
                "user": "1000:1000",
            },
        )

    yield spec
    selector = {"label": f"{labels.LEDGER}={ledger}"}
    for row in docker_client.api.containers(all=True, filters=selector):
        with suppress(docker.errors.NotFound):
            docker_client.api.remove_container(row["Id"], force=True, v=True)


def run(client: docker.DockerClient, spec: ContainerSpec) -> str:
    """Run a container to its end and return its output."""
    container_id = containers.create(client, spec)
    containers.start(client, container_id)
    client.api.wait(container_id, timeout=30)
    return bytes(client.api.logs(container_id)).decode()


def simulated(engine: Any, *numbers: int) -> tuple[Device, ...]:
    return tuple(
        Device(id=engine.device_ids[number], node="testbed", simulated=True) for number in numbers
    )


def test_a_created_container_was_never_started_and_holds_what_it_was_given(
    docker_client: docker.DockerClient, engine: Any, make: Make, ledger: str
) -> None:
    given = simulated(engine, 1, 3)
    container_id = containers.create(docker_client, make(given=given))

    seen = observe.observe(docker_client, container_id)
    assert seen is not None
    assert (seen.state, seen.started, seen.live, seen.exit_code) == ("created", False, False, None)
    assert seen.device_ids == seen.injected == tuple(device.id for device in given)
    assert seen.created_at > 0

    containers.start(docker_client, container_id)
    (seen,) = observe.observe_all(docker_client, ledger)
    assert (seen.container_id, seen.state, seen.started) == (container_id, "running", True)


def test_through_cdi_a_container_gets_exactly_its_devices(
    docker_client: docker.DockerClient, engine: Any, make: Make
) -> None:
    given = simulated(engine, 0, 2)
    script = "ls /run/gpus; echo $NVIDIA_VISIBLE_DEVICES; ls /dev | grep nvidia"
    output = run(docker_client, make("sh", "-c", script, given=given))
    assert output.split() == [*(device.id for device in given), "void", "nvidia0", "nvidia2"]


def test_a_bind_shows_the_same_marker_and_can_not_be_removed(
    docker_client: docker.DockerClient, engine: Any, make: Make
) -> None:
    given = simulated(engine, 0, 1)
    # the errors of sh would come between the lines
    script = "exec 2>/dev/null; ls /run/gpus; rm /run/gpus/* || echo stays"
    binds = devices.host_config(given, Injection.BIND)["binds"]
    output = run(docker_client, make("sh", "-c", script, binds=binds))
    assert output.split()[:2] == [device.id for device in given]
    (seen,) = observe.observe_all(docker_client, _ledger_of(docker_client, make))
    assert seen.injected == tuple(device.id for device in given)
    assert "stays" in output


def _ledger_of(client: docker.DockerClient, make: Make) -> str:
    return make().labels[labels.LEDGER]


def test_a_device_that_the_engine_does_not_have_fails_at_start_and_is_named(
    docker_client: docker.DockerClient, make: Make
) -> None:
    missing = Device(id="GPU-00000000-no-such", node="testbed")
    container_id = containers.create(docker_client, make(given=(missing,)))
    with pytest.raises(docker.errors.APIError) as caught:
        containers.start(docker_client, container_id)
    translated = translate(caught.value)
    assert isinstance(translated, DeviceMissing)
    assert missing.id in translated.log_message
    seen = observe.observe(docker_client, container_id)
    assert seen is not None
    assert not seen.started, "it holds no device"


def test_creating_twice_gives_the_same_container(
    docker_client: docker.DockerClient, make: Make
) -> None:
    assert containers.create(docker_client, make()) == containers.create(docker_client, make())


def test_a_foreign_container_with_the_wanted_name_is_never_touched(
    docker_client: docker.DockerClient, image: str, make: Make, run_container: Callable[..., Any]
) -> None:
    spec = make()
    foreign = run_container(image, list(SLEEP), name=spec.name)
    with pytest.raises(EngineConflict, match="something that is not ours, running"):
        containers.create(docker_client, spec)
    holder = containers.name_taken(docker_client, spec.name)
    assert holder is not None
    assert (holder.container_id, holder.identity, holder.live) == (foreign.id, None, True)


def test_the_verbs_may_be_repeated_and_the_engine_says_when_it_is_gone(
    docker_client: docker.DockerClient, make: Make
) -> None:
    container_id = containers.create(docker_client, make())
    for _ in range(2):
        containers.start(docker_client, container_id)
    for _ in range(2):
        containers.stop(docker_client, container_id, grace=5)
    seen = observe.observe(docker_client, container_id)
    assert seen is not None
    assert (seen.state, seen.exit_code) == ("exited", 0)
    for _ in range(2):
        containers.remove(docker_client, container_id)
    assert observe.observe(docker_client, container_id) is None
    containers.stop(docker_client, container_id)
    assert containers.name_taken(docker_client, make().name) is None
    with pytest.raises(docker.errors.NotFound):
        containers.start(docker_client, container_id)


def test_a_container_that_ended_is_not_started_again(
    docker_client: docker.DockerClient, make: Make
) -> None:
    spec = make("sh", "-c", "echo ran")
    assert run(docker_client, spec) == "ran\n"
    seen = containers.name_taken(docker_client, spec.name)
    assert seen is not None
    containers.start(docker_client, seen.container_id)
    assert docker_client.api.logs(seen.container_id) == b"ran\n"


def test_removing_kills_what_runs(docker_client: docker.DockerClient, make: Make) -> None:
    container_id = containers.create(docker_client, make())
    containers.start(docker_client, container_id)
    containers.remove(docker_client, container_id)
    assert observe.observe(docker_client, container_id) is None


def test_an_exit_report_has_the_code_and_the_last_lines(
    docker_client: docker.DockerClient, make: Make
) -> None:
    spec = make("sh", "-c", "exec >&2; echo first; echo second; echo third; exit 3")
    run(docker_client, spec)
    report = containers.exit_report(docker_client, spec.name, lines=2)
    assert report is not None
    assert (report.exit_code, report.oom, report.error) == (3, False, "")
    assert report.log_tail.splitlines() == ["second", "third"]
    assert report.finished_at.startswith("20")


def test_a_command_that_can_not_run_is_reported_in_the_engines_words(
    docker_client: docker.DockerClient, make: Make
) -> None:
    container_id = containers.create(docker_client, make("/no/such/program"))
    with pytest.raises(docker.errors.APIError):
        containers.start(docker_client, container_id)
    report = containers.exit_report(docker_client, container_id)
    assert report is not None
    assert (report.exit_code, report.finished_at) == (None, "")
    assert "/no/such/program" in report.error


def test_memory_past_the_limit_is_killed_by_the_kernel_and_reported(
    docker_client: docker.DockerClient, make: Make
) -> None:
    small = limits.host_config(limits.parse_limits({"mem_limit": "32M"}))
    spec = make("tail", "/dev/zero", **small)
    run(docker_client, spec)
    report = containers.exit_report(docker_client, spec.name)
    assert report is not None
    assert (report.exit_code, report.oom) == (137, True)


def test_a_fork_bomb_ends_at_its_pids(docker_client: docker.DockerClient, make: Make) -> None:
    few = limits.host_config(limits.parse_limits({"pids_limit": 10}))
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 20 & done; echo all started"
    output = run(docker_client, make("sh", "-c", script, **few))  # bash would try again for 15 s
    assert "Cannot fork" in output
    assert "all started" not in output


def test_the_kernel_holds_the_cpu_quota_shared_memory_and_file_limit(
    docker_client: docker.DockerClient, make: Make
) -> None:
    wanted = limits.parse_limits(
        {"mem_limit": "64M", "cpu_limit": 0.5, "ulimits": {"nofile": "100:200"}}
    )
    script = (
        "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null;"
        "df -B1 --output=size /dev/shm | tail -1; ulimit -Sn; ulimit -Hn"
    )
    output = run(docker_client, make("bash", "-c", script, **limits.host_config(wanted)))
    quota, *_, shm, soft, hard = output.split()
    assert (quota, int(shm), soft, hard) == ("50000", 32 * limits.MIB, "100", "200")


def test_more_processors_than_the_machine_has_are_no_error(
    docker_client: docker.DockerClient, make: Make
) -> None:
    many = limits.host_config(limits.parse_limits({"cpu_limit": 4096}))
    assert run(docker_client, make("echo", "fine", **many)) == "fine\n"


def test_a_server_has_no_capability_and_can_not_gain_one(
    docker_client: docker.DockerClient, make: Make
) -> None:
    output = run(docker_client, make("grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status"))
    found = dict(line.split() for line in output.splitlines())
    assert found.pop("NoNewPrivs:") == "1"
    assert set(found.values()) == {"0" * 16}


def test_a_survey_sees_one_ledger_in_every_state(
    docker_client: docker.DockerClient, make: Make, ledger: str, run_container: Callable[..., Any]
) -> None:
    containers.create(docker_client, make(user="created"))
    containers.start(docker_client, containers.create(docker_client, make(user="running")))
    run(docker_client, make("true", user="exited"))
    other = labels.server_labels(Identity(ledger="other", lease="l", user="x"))
    run_container(make().image, ["true"], labels=other, start=False)
    seen = observe.observe_all(docker_client, ledger)
    states = {one.identity.user: one.state for one in seen if one.identity}
    assert states == {user: user for user in ("created", "running", "exited")}


def test_a_failed_pull_says_why(docker_client: docker.DockerClient) -> None:
    with pytest.raises(ImageMissing, match=r"127.0.0.1:1/none:1: .*refused"):
        containers.pull(docker_client, "127.0.0.1:1/none:1")


def test_creating_from_an_image_that_is_not_there_says_so(
    docker_client: docker.DockerClient, make: Make
) -> None:
    spec = make()
    lost = ContainerSpec(name=spec.name, image="no/such/image:1", labels=spec.labels)
    with pytest.raises(docker.errors.ImageNotFound) as caught:
        containers.create(docker_client, lost)
    assert isinstance(translate(caught.value), ImageMissing)
