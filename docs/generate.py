"""Regenerates the reference pages from the code: ``python docs/generate.py [--check]``.

A page is prose with blocks between ``<!-- begin: NAME ARGUMENTS -->`` and ``<!-- end -->``; what
stands in a block is written here. ``--check`` writes nothing and ends with 1 where a page is out
of date.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = "jupyterhub_gpuspawner"
_BLOCK = re.compile(r"(<!-- begin: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SINCE = re.compile(r"^\.\. versionadded:: *(\S+)$", re.MULTILINE)

#: what an admin does about a reason
ADVICE = {
    "device_busy": "Nothing; it comes back when its server ends and its memory is seen empty.",
    "device_foreign": "Find the program with `nvidia-smi` or `docker ps`; the page says which.",
    "device_unhealthy": "Read the note on the page: it says reset, reboot or replace.",
    "device_cordoned": "No command sets it in this release.",
    "device_quarantined": "A stop hung on it: reboot the machine.",
    "device_model": "Compare the profile's `gpu_model` with the names on the page.",
    "device_memory": "Compare the profile's `gpu_min_memory` with the GPUs.",
    "device_sharing": "Compare the profile's `gpu_sharing` with the devices' mode.",
    "device_reserved": "Nothing; it is booked for others, now or before the request would end.",
    "device_capability": "Compare the profile's `gpu_min_capability` with the GPUs.",
    "device_uncapped": "Give it `mps` and `mps_limit` in `static_devices`, or ask for no cap.",
    "device_other": "Compare the profile's `gpu_devices` with the ids on the page.",
    "node_not_ready": "Wait for the first comparison; else see the log of the service.",
    "node_cordoned": "No command sets it in this release.",
    "node_memory": "Lower `mem_limit` in the profiles, or `memory_reserve`.",
    "node_cpu": "Lower `cpu_limit` in the profiles, or raise `cpu_overcommit`.",
    "node_other": "Compare the profile's `node` or `pool` with `node_pools`.",
    "waiting_for_devices": "Nothing; it is the normal reason to wait.",
    "behind_others": "Nothing; the place in the line counts.",
    "user_limit": "Nothing, or raise `user_gpu_limit` or `user_gpu_limits`.",
    "group_limit": "Nothing, or raise `group_gpu_limits`.",
    "user_budget": "Nothing, or raise `user_gpu_budget` or `user_gpu_budgets`.",
    "group_budget": "Nothing, or raise `group_gpu_budgets`.",
    "previous_server": "Nothing; if it lasts, the stop [hangs](../howto/troubleshoot-a-start.md).",
    "not_attached": "Nothing; it is dropped after `detach_grace`, or `requeue_grace`.",
    "ledger_unavailable": "Free the disk, or repair the database; the log has its words.",
    "scheduler_starting": "Wait some seconds; else see the log of the service.",
    "engine_unavailable": "Look at Docker: `systemctl status docker`.",
    "engine_not_ours": "The log says which ledger owns the engine, and what to do.",
    "impossible": "Compare the profile with the machine; the message has the numbers.",
    "above_user_limit": "Raise the limit, or hide the profile with `allowed_groups`.",
    "above_group_limit": "Raise the limit, or hide the profile with `allowed_groups`.",
    "above_user_budget": "Raise the budget, or offer a shorter `length`.",
    "above_group_budget": "Raise the budget, or offer a shorter `length`.",
    "booking_refused": "Read the message; it says what is wrong with the booking.",
    "admin_only": "Hide the profile with `allowed_groups`, or leave out `gpu_devices`.",
    "queue_full": "Cancel a waiting server, or raise `queued_per_user` or `queued_total`.",
    "too_many_requests": "The user waits; or you raise `request_rate` or `request_burst`.",
    "stopped": "Nothing.",
    "cancelled": "Nothing.",
    "start_timeout": "See `bind_deadline`, `start_deadline`, `start_timeout`, and Docker's speed.",
    "exited": "Read the last lines of its log, which the user sees too.",
    "out_of_memory": "Raise `mem_limit`, or have the user load less.",
    "reclaimed": "Nothing; it was warned. See `reclaim_warning` and the profile's `length`.",
    "idle": "Nothing; it was warned. See `idle_timeout` and `group_idle_timeouts`.",
    "too_long": "Nothing; it may be extended again later.",
    "others_wait": "Nothing; the user may queue again.",
    "evicted": "Ask who did it: the journal says.",
    "node_lost": "Start it elsewhere; see [a lost machine](../howto/run-it.md"
    "#a-machine-that-is-gone-for-good).",
    "vanished": "Somebody ran `docker rm`: find out who.",
}


def module(name: str) -> ModuleType:
    """A module of the package."""
    return import_module(f"{PACKAGE}.{name}")


def markdown(text: str) -> str:
    """A help text or docstring as Markdown."""
    text = _SINCE.sub(r"*Since \1.*", inspect.cleandoc(text)).replace("``", "`")
    lines: list[str] = []
    code = False
    for line in text.splitlines():
        if code and line and not line.startswith("    "):
            while lines[-1] == "":
                lines.pop()
            lines += ["```", ""]
            code = False
        if line.endswith("::") and not code:
            lines += [line[:-1], "", "```python"]
            code = True
        elif code:
            if lines[-1] != "```python" or line:
                lines.append(line[4:])
        else:
            lines.append(line)
    return "\n".join([*lines, "```"] if code else lines)


def first_sentence(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return plain(inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0])


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    cells = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in cells)


# -- blocks ------------------------------------------------------------------------------------


def own_traits(path: str) -> dict[str, Any]:
    """Configurable traits that a class of ours, or a part of it in its own module, defines."""
    where, _, name = path.partition(":")
    cls = getattr(module(where), name)
    parts = {cls, *(base for base in cls.__mro__ if ".options_" in base.__module__)}
    traits = cls.class_traits(config=True)
    return {n: trait for n, trait in sorted(traits.items()) if trait.this_class in parts}


def options(path: str, section: str) -> str:
    """Every option of a class, with its help text."""
    parts = []
    cls = getattr(module(path.partition(":")[0]), path.partition(":")[2])
    for name, trait in own_traits(path).items():
        what = " ".join(trait.info().split())
        if not hasattr(cls, f"_default_{name}") and "Undefined" not in trait.default_value_repr():
            what += f"; default `{trait.default_value_repr()}`"
        parts.append(f"### c.{section}.{name}\n\n*{what}*\n\n{markdown(trait.help)}")
    return "\n\n".join(parts)


def overrides() -> str:
    """The words of a profile's ``spawner_override``."""
    models = module("profiles.models")
    notes = commented(inspect.getsource(models.Overrides), r"    (\w+): ")
    return table(
        ("word", "meaning"), ((f"`{name}`", notes[name]) for name in models.Overrides.model_fields)
    )


def commented(source: str, pattern: str) -> dict[str, str]:
    """Name -> its ``#:`` comment; ``pattern`` finds the name in a line after it."""
    found: dict[str, str] = {}
    said: list[str] = []
    used = False
    for line in source.splitlines():
        match = re.match(pattern, line)
        if line.strip().startswith("#:"):
            said = [line.strip()[2:]] if used else [*said, line.strip()[2:]]
            used = False
        elif match is not None:
            found[match[1]] = plain(" ".join(said))
            used = True  # a comment may stand for several names
    return found


def plain(text: str) -> str:
    """One line of Markdown; Sphinx' cross-references become their bare names."""
    text = re.sub(r":\w+:`~?\.*(?:\w+\.)*(\w+)`", r"`\1`", text.replace("``", "`"))
    return " ".join(text.split())


def reasons() -> str:
    """Every reason: what the user reads, and what the admin does."""
    models, words = module("scheduler.models"), module("service.words")
    source = inspect.getsource(models.Reason)
    parts = []
    for title, body in re.findall(r"    # (.+?)\n((?:    [A-Z_]+ = .+\n)+)", source):
        names = re.findall(r"    ([A-Z_]+) = ", body)
        rows = (
            (
                f"`{models.Reason[name].value}`",
                words.REASONS.get(models.Reason[name], "(a text of its own, with the numbers)"),
                ADVICE[models.Reason[name].value],
            )
            for name in names
        )
        text = table(("value", "what the user reads", "what you do"), rows)
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n{text}")
    return "\n\n".join(parts)


def metrics() -> str:
    """Every metric of the service, and of the Hub that uses it."""
    service, hub = module("service.metrics").Metrics(), module("hub_metrics")
    rows = []
    for value in (*vars(service).values(), *vars(hub).values()):
        if hasattr(value, "_labelnames"):
            name = value._name + ("_total" if value._type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in value._labelnames) or "none"
            rows.append((f"`{name}`", value._type, labels, f"{value._documentation}."))
    return table(("name", "type", "labels", "meaning"), iter(sorted(rows)))


def all_routes() -> list[tuple[str, type]]:
    """(pattern below the prefix, handler) of the service."""
    found = [
        *module("service.api_internal").routes("", None),
        *module("service.pages").routes("", None),
        *module("service.api").routes("", None)[-1:],
    ]
    return [(route[0], route[1]) for route in found]


def routes() -> str:
    """Every address of the service."""
    rows = []
    for pattern, handler in all_routes():
        shown = pattern.replace("\\", "").replace("(gpus.css)", "gpus.css")
        shown = re.sub(r"\(\[A-Za-z0-9\].*?\)(?=/)", "ID", shown)
        ours = handler.__module__.startswith(PACKAGE)
        meaning = first_sentence(handler) if ours else "The page's style sheet."
        rows.append((f"`{shown or '(the prefix itself)'}`", meaning))
    return table(("address", "meaning"), iter(rows))


def operations() -> str:
    """What the API for everybody does."""
    rows = [
        (
            f"`{one.method.upper()} api/{one.path}`",
            ", ".join(f"`{parameter.name}`" for parameter in one.query) or "-",
            f"`{one.scope}`" if one.scope else "access",
            one.summary,
        )
        for one, _ in module("service.api").OPERATIONS
    ]
    return table(("address", "query", "needs", "meaning"), iter(rows))


def answers() -> str:
    """The fields of the API's answers."""
    models = module("service.api_models")
    parts = []
    for name in (
        "Device",
        "Booked",
        "Node",
        "Lease",
        "Place",
        "Booking",
        "Group",
        "Used",
        "Note",
        "Record",
    ):
        fields = getattr(models, name).model_fields.items()
        rows = ((f"`{field}`", info.description or "-") for field, info in fields)
        parts.append(f"**{name}**\n\n{table(('field', 'meaning'), rows)}")
    return "\n\n".join(parts)


def bodies() -> str:
    """The bodies that the internal API accepts."""
    parts = []
    for name in ("Ask", "Request", "Bind", "Stopping", "Ended"):
        model = getattr(module("service.bodies"), name)
        schema = model.model_json_schema()
        needed = schema.get("required", ())
        rows = (
            (f"`{n}`", kind(f), "needed" if n in needed else f"`{json.dumps(f.get('default'))}`")
            for n, f in schema["properties"].items()
        )
        text = table(("field", "type", "default"), rows)
        parts.append(f"**{name}**: {first_sentence(model)}\n\n{text}")
    return "\n\n".join(parts)


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(kind(part) for part in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {"Mode": "a kind of device", "Reason": "a [reason](reasons.md)"}.get(name, name)
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return "list of " + " and ".join(kind(part) for part in schema["prefixItems"])
        return f"list of {kind(schema['items'])}"
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = f", {least} to {most}" if least is not None and most is not None else ""
    return str(schema.get("type")) + bounds


def labels() -> str:
    """Every label of containers and volumes."""
    names = module("engine.labels")
    notes = commented(inspect.getsource(names), r"([A-Z_]+) = ")
    rows = [(f"`{getattr(names, n)}`", note) for n, note in notes.items() if n != "PREFIX"]
    return table(("label", "meaning"), iter(rows))


def head(script: str) -> str:
    """The comment that a script begins with: its own ``--help``."""
    lines = (ROOT / script).read_text(encoding="utf-8").splitlines()[1:]
    text: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        text.append(line[2:] if line.startswith("# ") else line[1:])
    return "```text\n" + "\n".join(text).strip() + "\n```"


def docstring(name: str) -> str:
    """The text that a module of ours prints for ``--help``."""
    text = inspect.cleandoc(module(name).__doc__ or "")
    return f"```text\n{text}\n```"


def cli() -> str:
    """Every command of ``jupyterhub-gpuspawner``."""
    parts = []
    for command in module("cli.main").COMMANDS:
        words = [a.name if a.name[0].isupper() else f"[{a.name}]" for a in command.all_arguments]
        usage = " ".join(["jupyterhub-gpuspawner", command.name, *words])
        rows = [(f"`{a.name}`", a.help) for a in command.all_arguments]
        parts.append(
            f"### {command.name}\n\n```text\n{usage}\n```\n\n{command.help}\n\n"
            + table(("argument", "meaning"), iter(rows))
        )
    return "\n\n".join(parts)


def checks() -> str:
    """What ``doctor`` looks at."""
    rows = [(f"`{one.name}`", one.help) for one in module("doctor.examine").CHECKS]
    return table(("check", "what is right"), iter(rows))


def benchmarks() -> str:
    """The programs that ``benchmarks/run`` knows."""
    rows = []
    for path in sorted((ROOT / "benchmarks").glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append((f"`{path.stem}`", plain(text.split("\n\n")[0])))
    return table(("name", "what it measures"), iter(rows))


BLOCKS: dict[str, Callable[..., str]] = {
    "options": options,
    "overrides": overrides,
    "reasons": reasons,
    "metrics": metrics,
    "routes": routes,
    "operations": operations,
    "answers": answers,
    "bodies": bodies,
    "labels": labels,
    "head": head,
    "cli": cli,
    "benchmarks": benchmarks,
    "checks": checks,
    "docstring": docstring,
}

# -- pages -------------------------------------------------------------------------------------


def regenerate(text: str) -> str:
    """A page with its blocks written anew."""

    def block(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        return f"{match[1]}\n{BLOCKS[name](*arguments)}\n\n{match[4]}"

    return _BLOCK.sub(block, text)


def stale() -> Iterator[tuple[Path, str]]:
    """(page, what it should be) of the pages that are out of date."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if "<!-- begin: " in text:
            wanted = regenerate(text)
            if wanted != text:
                yield path, wanted


def main(arguments: list[str]) -> int:
    """Write the pages, or only look with ``--check``; returns the exit code."""
    check = "--check" in arguments
    found = list(stale())
    for path, wanted in found:
        sys.stderr.write(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}\n")
        if not check:
            path.write_text(wanted, encoding="utf-8")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
