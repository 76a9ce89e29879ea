"""What happens to servers, GPUs and people when something goes wrong: the same for both sides.

Each scenario does one thing to a Hub and returns what an observer sees at the engine and on the
Hub's pages. What must hold is judged here by one rule for both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import docker.errors

from deploy.quickstart.person import Person
from tests.stock.sides import Side, settles

INSPECT = r"^GET /containers/[^/]+/json"
CREATE = r"^POST /containers/create"
START = r"^POST /containers/[^/]+/start"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How it ended for one side."""

    #: whether what must hold held
    kept: bool
    #: what was seen, in a few words without times, names or ids
    seen: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One row of the comparison."""

    #: what happens
    title: str
    #: what must hold
    rule: str
    play: Callable[[Side], Outcome]


SCENARIOS: list[Scenario] = []


def scenario(title: str, rule: str) -> Callable[[Callable[[Side], Outcome]], Any]:
    """Add a function to the scenarios."""

    def add(play: Callable[[Side], Outcome]) -> Callable[[Side], Outcome]:
        SCENARIOS.append(Scenario(title=title, rule=rule, play=play))
        return play

    return add


def started(side: Side, name: str) -> Person:
    """Somebody whose server runs."""
    person = side.person(name)
    told = side.start(person)
    assert not told, f"{side.title}, {name}: {told}\n{side.hub.last_words(30)}"
    return person


def gone(side: Side, person: Person) -> bool:
    """Stop, whatever the state, and see that nothing of it is left, for the next scenario."""
    side.stop(person)
    for container in side.containers(person.name):
        # a Hub may be at it, or done with it
        with suppress(docker.errors.APIError):
            container.remove(force=True, v=True)
    return settles(lambda: not side.shown(person) and not side.containers(person.name))


def facts(side: Side, person: Person) -> str:
    """The container and the Hub's belief, in words."""
    states = {container.status for container in side.containers(person.name)}
    if "running" in states:
        container = "the container runs"
    elif states:
        container = f"a container is left ({', '.join(sorted(states))})"
    else:
        container = "no container is left"
    shown = "shows a server" if side.shown(person) else "shows none"
    return f"{container}, the Hub {shown}"


@scenario(
    "Docker answers 500 to a look at a running container",
    "A server that runs stays the user's: an error proves no end",
)
def engine_error_at_a_look(side: Side) -> Outcome:
    person = started(side, "error")
    with side.wire.rule(INSPECT, "refuse"):
        # as long as it takes a Hub that polls each second to be misled
        settles(lambda: not side.shown(person), 6)
        kept = side.running(person.name) and side.shown(person)
        seen = facts(side, person)
    gone(side, person)
    return Outcome(kept=kept, seen=seen)


@scenario(
    "Docker is unreachable for some seconds while a server runs",
    "A server that runs stays the user's: silence proves no end",
)
def engine_away(side: Side) -> Outcome:
    person = started(side, "silence")
    with side.wire.rule("", "cut"):
        settles(lambda: not side.shown(person), 5)
    # the next polls see the engine again
    settles(lambda: not side.shown(person), 3)
    outcome = Outcome(
        kept=side.running(person.name) and side.shown(person), seen=facts(side, person)
    )
    gone(side, person)
    return outcome


@scenario(
    "A user stops a server while Docker is unreachable; then Docker is back",
    "Nothing runs that the Hub does not show",
)
def engine_away_at_a_stop(side: Side) -> Outcome:
    person = started(side, "unheard")
    with side.wire.rule("", "cut"):
        person.cancel()
        settles(lambda: not side.shown(person), 4)
    settles(lambda: side.running(person.name) == side.shown(person))
    settles(lambda: not side.running(person.name), 4)
    outcome = Outcome(
        kept=not side.running(person.name) or side.shown(person), seen=facts(side, person)
    )
    gone(side, person)
    return outcome


@scenario(
    "The Hub is killed (kill -9) while it starts a container, and starts again",
    "Nothing runs that the Hub does not show",
)
def hub_killed_in_mid_start(side: Side) -> Outcome:
    person = side.person("killed")
    with side.wire.rule(START, "hold") as rule:
        side.ask(person)
        assert rule.reached.wait(30), side.hub.last_words(30)
        side.hub.kill()
    side.hub.start()
    person.login()
    settles(lambda: side.running(person.name) == side.shown(person))
    outcome = Outcome(
        kept=side.running(person.name) == side.shown(person), seen=facts(side, person)
    )
    gone(side, person)
    return outcome


def cancelled(side: Side, name: str) -> Outcome:
    """Press stop while the engine starts the container; the engine answers after that."""
    person = side.person(name)
    with side.wire.rule(START, "hold") as rule:
        side.ask(person)
        assert rule.reached.wait(30), side.hub.last_words(30)
        person.cancel()
    settles(lambda: not side.containers(name) and not side.shown(person))
    kept = side.running(name) == side.shown(person)
    outcome = Outcome(kept=kept, seen=facts(side, person))
    gone(side, person)
    return outcome


@scenario(
    "A user cancels while Docker starts the container",
    "Nothing runs that the Hub does not show",
)
def cancel_in_mid_start(side: Side) -> Outcome:
    return cancelled(side, "cancels")


@scenario(
    "A `docker create` is slower than `start_timeout`, and takes effect afterwards",
    "No container of a start that failed is left",
)
def late_create(side: Side) -> Outcome:
    person = side.person("late")
    with side.wire.rule(CREATE, "gate") as rule:
        side.ask(person)
        assert rule.reached.wait(30), side.hub.last_words(30)
        settles(lambda: not side.shown(person))
    # it is created now; who ought to see to that has its time
    settles(lambda: bool(side.containers(person.name)), 3)
    settles(lambda: not side.containers(person.name) and not side.shown(person), 8)
    outcome = Outcome(kept=not side.containers(person.name), seen=facts(side, person))
    gone(side, person)
    return outcome


def apart(side: Side, one: Person, other: Person) -> Outcome:
    """Whether two have a GPU each; then both stop."""
    first, second = side.gpus(one.name), side.gpus(other.name)
    kept = bool(first and second) and not first & second
    for person in (one, other):
        gone(side, person)
    return Outcome(
        kept=kept, seen="each has a GPU of its own" if kept else "both have the same GPU"
    )


@scenario(
    "Two users press start at the same moment; two GPUs are free",
    "No GPU is in two running containers",
)
def two_at_once(side: Side) -> Outcome:
    people = [side.person(name) for name in ("first", "second")]
    with side.wire.rule(CREATE, "gate") as rule:
        for person in people:
            side.ask(person)
        # DockerSpawner has one call at a time on the way, so one is enough
        assert rule.reached.wait(30), side.hub.last_words(30)
    settles(lambda: all(side.running(person.name) for person in people), 30)
    return apart(side, *people)


@scenario(
    "A third user asks while two servers have the two GPUs",
    "They are told, or wait until a GPU is free",
)
def none_free(side: Side) -> Outcome:
    holders = [started(side, name) for name in ("one", "two")]
    third = side.person("three")
    answer = side.ask(third)
    if answer.status_code == 409:
        kept, seen = True, "refused at once, with the reason; the user tries again by hand"
    else:
        gone(side, holders[0])
        kept = settles(lambda: side.running("three"), 30)
        seen = "waits, and starts when a GPU is free" if kept else "does not start"
    for person in (third, *holders):
        gone(side, person)
    return Outcome(kept=kept, seen=seen)


@scenario(
    "A server is stopped, its GPU goes to another user, it starts again (`remove = False`, "
    "DockerSpawner's default)",
    "No GPU is in two running containers",
)
def stale_gpu(side: Side) -> Outcome:
    kept = started(side, "kept")
    side.stop(kept)
    other = started(side, "other")
    told = side.start(kept)
    assert not told, told
    return apart(side, kept, other)


def state_of(container: Any) -> str:
    """What the engine says of a container, or ``gone``."""
    try:
        container.reload()
    except docker.errors.NotFound:
        return "gone"
    return str(container.status)


def foreign(side: Side, name: str) -> Outcome:
    """Somebody else's container has the name that the server will have."""
    person = side.person(name)
    image = side.client.images.get("gpus-stub:latest").id
    container = side.client.containers.run(
        image, ["sleep", "1000"], entrypoint="", name=side.container_name(name), detach=True
    )
    try:
        told = side.start(person)
        alive = state_of(container) == "running"
        # whatever the Hub now thinks it is, the user's stop must not end it
        side.stop(person)
        after = state_of(container)
    finally:
        with suppress(docker.errors.NotFound):
            container.remove(force=True)
    survives = alive and after == "running"
    if not survives:
        how = "the start fails, and it" if told else "it is taken for the user's server, and"
        end = "removed" if after == "gone" else "stopped"
        seen = f"{how} is {end}"
    elif "server's name" in told:
        seen = "left alone, and the user is told why nothing starts"
    else:
        seen = "left alone, and the start fails without its reason"
    gone(side, person)
    return Outcome(kept=survives, seen=seen)


@scenario(
    "A container of somebody else has the server's name",
    "It is not touched",
)
def foreign_name(side: Side) -> Outcome:
    return foreign(side, "twin")


@scenario(
    "The same with `remove = False`",
    "It is not touched",
)
def foreign_name_kept(side: Side) -> Outcome:
    return foreign(side, "kepttwin")


@scenario(
    "A server ends with an error when it starts",
    "The user is told how it ended",
)
def dies_at_start(side: Side) -> Outcome:
    person = side.person("dies")
    told = side.start(person)
    kept = "exit code 3" in told or "ExitCode=3" in told
    seen = "told: exit code and last lines" if kept else "told that it did not start in time"
    gone(side, person)
    return Outcome(kept=kept, seen=seen)


@scenario(
    "A server takes more memory than its limit, and the kernel kills it",
    "The user is told why",
)
def out_of_memory(side: Side) -> Outcome:
    person = started(side, "hungry")
    person.visit("eat?200")
    assert settles(lambda: not side.running(person.name)), "it was not killed"
    settles(lambda: not side.shown(person))
    page = person.page(f"/hub/spawn/{person.name}") + person.page("/hub/home")
    kept = "out of memory" in page
    gone(side, person)
    seen = (
        "told on the form: out of memory, and the limit"
        if kept
        else "the server is gone, without a word"
    )
    return Outcome(kept=kept, seen=seen)


@scenario(
    "A memory limit of 64 MiB",
    "The kernel lets the server have 64 MiB, swap included",
)
def swap(side: Side) -> Outcome:
    person = started(side, "limits")
    (container,) = side.containers(person.name)
    host = container.attrs["HostConfig"]
    memory, both = host["Memory"] >> 20, host["MemorySwap"] >> 20
    gone(side, person)
    return Outcome(kept=both == memory == 64, seen=f"{memory} MiB, {both} MiB with swap")


@scenario(
    'The REST API is asked for `{"image": "other", "device_ids": ["all"]}`',
    "Only what the configuration allows starts, and what is refused is said",
)
def option_injection(side: Side) -> Outcome:
    person = side.person("greedy")
    answer = side.ask(person, {**side.options(), "image": "other", "device_ids": ["all"]})
    refused = 400 <= answer.status_code < 500
    settles(lambda: not side.shown(person) or side.running(person.name))
    started_it = side.running(person.name)
    gone(side, person)
    seen = "refused with a 4xx" if refused else f"answered {answer.status_code}"
    return Outcome(kept=refused and not started_it, seen=seen)


@scenario(
    'An unknown option in the REST API: `{"gpu": 2}`',
    "The user learns that it has no effect",
)
def unknown_option(side: Side) -> Outcome:
    person = side.person("typo")
    answer = side.ask(person, {**side.options(), "gpu": 2})
    refused = 400 <= answer.status_code < 500
    if not refused:
        settles(lambda: side.running(person.name), 30)
    gone(side, person)
    seen = "refused with a 4xx" if refused else "a server starts as if it had not been asked"
    return Outcome(kept=refused, seen=seen)


@scenario(
    "A user cancels while Docker starts the container; DockerSpawner has 8 threads instead of 1",
    "Nothing runs that the Hub does not show",
)
def cancel_with_threads(side: Side) -> Outcome:
    return cancelled(side, "threads")


def play(sides: Sequence[Side]) -> list[dict[str, Outcome | BaseException]]:
    """All scenarios, in order on each side and on both sides at once."""

    def one(side: Side) -> list[Outcome | BaseException]:
        found: list[Outcome | BaseException] = []
        for each in SCENARIOS:
            try:
                found.append(each.play(side))
            except Exception as error:  # noqa: BLE001 - told by the test of this scenario
                found.append(error)
        return found

    with ThreadPoolExecutor(len(sides)) as pool:
        columns = list(pool.map(one, sides))
    return [
        {side.title: column[row] for side, column in zip(sides, columns, strict=True)}
        for row in range(len(SCENARIOS))
    ]
