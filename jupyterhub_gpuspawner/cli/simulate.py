"""``simulate``: the site's own journal again, with more GPUs or other options."""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from traitlets.config import Config

from ..errors import ConfigError
from ..scheduler.models import Settings
from ..scheduler.whatif import Job, Outcome, Site, WhatIf
from ..service.options import GPUScheduler
from ..store import past
from .command import OK, Argument, Command, CommandError, say, say_json, table
from .site import CONFIG, options

#: most GPUs that may be added
_MOST = 10_000
HEADS = ("what", "mean wait", "median", "90 %", "longest", "GPUs in use", "not served")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One run, or what really was, in numbers. Waits in seconds."""

    name: str
    mean: float
    median: float
    p90: float
    longest: float
    #: part of the GPUs held from the first request to the last one, 0..1
    used: float | None
    #: requests that are refused, or never get what they ask for
    unserved: int = 0

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "wait_mean": round(self.mean, 1),
            "wait_median": round(self.median, 1),
            "wait_p90": round(self.p90, 1),
            "wait_longest": round(self.longest, 1),
            "used": None if self.used is None else round(self.used, 4),
            "unserved": self.unserved,
        }

    def row(self) -> tuple[str, ...]:
        """For people."""
        waits = (self.mean, self.median, self.p90, self.longest)
        used = "" if self.used is None else f"{100 * self.used:.0f} %"
        return (self.name, *(minutes(wait) for wait in waits), used, str(self.unserved))


def minutes(seconds: float) -> str:
    """``41 min``, ``3.5 min``: one unit, so that numbers can be compared."""
    value = seconds / 60
    return f"{value:.0f} min" if value >= 10 else f"{value:.1f} min"


def numbers(name: str, waits: Sequence[float], used: float | None, unserved: int = 0) -> Result:
    """Waits as a result."""
    ordered = sorted(waits) or [0.0]
    return Result(
        name=name,
        mean=statistics.fmean(ordered),
        median=statistics.median(ordered),
        p90=ordered[min(len(ordered) * 9 // 10, len(ordered) - 1)],
        longest=ordered[-1],
        used=used,
        unserved=unserved,
    )


def enlarged(site: Site, more: int) -> Site:
    """The site with GPUs of its most frequent kind more, on a machine of their own."""
    if not more:
        return site
    kinds: dict[tuple[Any, ...], int] = {}
    for device in site.devices:
        kind = (device.mode, device.model, device.memory, device.capability, device.atoms)
        kinds[kind] = kinds.get(kind, 0) + 1
    most = max(kinds, key=lambda kind: (kinds[kind], str(kind)))
    sample = next(
        device
        for device in site.devices
        if (device.mode, device.model, device.memory, device.capability, device.atoms) == most
    )
    model = next(node for node in site.nodes if node.name == sample.node)
    beside = sum(device.node == model.name for device in site.devices)
    node = replace(
        model,
        name=f"more-{model.name}",
        memory=model.memory * more // beside,
        cpus=model.cpus * more / beside,
    )
    added = tuple(
        replace(sample, id=f"SIMULATED-more-{k}", node=node.name, index=k, parent=None, bonds=())
        for k in range(more)
    )
    return Site(nodes=(*site.nodes, node), devices=(*site.devices, *added))


def changed(base: GPUScheduler, words: Sequence[str]) -> Settings:
    """The options with ``NAME=VALUE`` set. CommandError for one that is not an option's."""
    values: dict[str, Any] = {}
    known = GPUScheduler.class_traits(config=True)
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or name not in known:
            raise CommandError(f"--set {word}: want OPTION=VALUE, an option of c.GPUScheduler")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            # "72h", fgd
            values[name] = text
    own = dict(base.config.get("GPUScheduler", {}))
    try:
        return GPUScheduler(config=Config({"GPUScheduler": {**own, **values}})).settings()
    except ConfigError as error:
        raise CommandError(f"--set: {error}") from None


def run_once(name: str, jobs: Sequence[Job], site: Site, settings: Settings) -> Result:
    """One simulation."""
    found: Outcome = WhatIf(jobs, site, settings).run()
    begin, end = jobs[0].at, jobs[-1].at
    span = (end - begin) * site.atoms
    used = found.used(begin, end) / span if span else None
    unserved = len(found.refused) + len(found.never)
    return numbers(name, list(found.waits.values()), used, unserved)


def _more(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if not all(0 < number <= _MOST for number in found):
        raise CommandError(
            f"--more-gpus {text}: want whole numbers from 1 to {_MOST}, such as 2 or 2,4,8"
        )
    return found


def _simulate(arguments: argparse.Namespace) -> int:
    more = _more(arguments.more_gpus) if arguments.more_gpus else []
    base = options(arguments) if arguments.config or not arguments.ledger else GPUScheduler()
    other = changed(base, arguments.set or ())
    history = past.read(arguments.ledger or base.ledger)
    jobs, site = history.jobs, history.site
    if not jobs:
        raise CommandError(
            f"ledger {history.name}: no server in it was granted and has ended; nothing to replay"
        )
    if not site.devices:
        raise CommandError(f"ledger {history.name}: it knows no GPU; nothing to replay")
    results = [
        numbers("as it was", history.waits, None),
        run_once("simulated as it is", jobs, site, base.settings()),
    ]
    if arguments.set:
        results.append(run_once(" ".join(arguments.set), jobs, site, other))
    for number in more:
        name = f"{number} more GPU{'s' if number > 1 else ''}"
        results.append(run_once(name, jobs, enlarged(site, number), other))
    _print(arguments.json, history, results)
    return OK


def _print(as_json: bool, history: past.Past, results: Sequence[Result]) -> None:
    left: Mapping[str, int] = history.left_out
    if as_json:
        say_json(
            {
                "ledger": history.name,
                "requests": len(history.jobs),
                "left_out": dict(left),
                "gpus": len(history.site.devices),
                "results": [result.json() for result in results],
            }
        )
        return
    say(
        f"{len(history.jobs)} requests of {len({job.user for job in history.jobs})} users "
        f"on {len(history.site.devices)} GPUs"
    )
    for why, count in left.items():
        if count:
            say(f"left out: {count} that {why}")
    say(table(HEADS, [result.row() for result in results]))
    base = results[1]
    for result in results[2:]:
        say(f"{result.name}: mean wait {minutes(base.mean)} -> {minutes(result.mean)}")


COMMANDS = (
    Command(
        name="simulate",
        help="Replay the site's own requests with more GPUs or other options.\n\n"
        "Everything that was asked for and granted is asked for again at the same times, on "
        "simulated time, through the scheduler itself. Each server stays as long as it really "
        "did. The ledger is only read, also while the Hub runs. What the numbers can't know: "
        "that people who wait less ask more often.",
        arguments=(
            Argument(
                name="--more-gpus N",
                help="GPUs of the most frequent kind added, on a machine of their own; several "
                "cases with commas: 2,4,8",
            ),
            Argument(
                name="--set OPTION=VALUE",
                help="an option of c.GPUScheduler to try, such as age_guard=72h; may be repeated",
                more={"action": "append"},
            ),
            Argument(
                name="--ledger URL",
                help="the ledger's database, instead of what the configuration says: a backup's "
                "sqlite:////folder/file, say",
            ),
            CONFIG,
        ),
        run=_simulate,
    ),
)
