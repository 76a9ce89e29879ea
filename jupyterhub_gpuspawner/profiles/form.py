"""The form on the Hub's spawn page: the profiles, and what is free now.

Plain HTML with the Hub's own Bootstrap classes. It needs no JavaScript: one style rule hides
the options of the profiles that are not chosen, and a browser that doesn't know the rule shows
them all. Every text is escaped, the admin's as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from html import escape
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..errors import RequestError
from ..i18n import ENGLISH, Words, words_of
from ..units import format_duration, format_memory
from .models import UNLISTED, Option, Profile
from .resolve import (
    UNLISTED_SUFFIX,
    Profiles,
    ResolvedProfile,
    may_type,
    visible_choices,
)

_ENGLISH = words_of(ENGLISH)

#: settings that decide which GPUs would do
_GPU_WORDS = frozenset(
    {
        *("gpus", "gpu_model", "gpu_min_memory", "gpu_sharing", "gpu_min_capability"),
        *("gpu_memory_limit", "gpu_devices", "node", "pool"),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Availability:
    """What the scheduler said a moment ago. None in its place: it doesn't answer."""

    #: GPU model -> (free now, usable in all)
    free: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    #: requests that wait
    waiting: int = 0
    #: the GPUs exist only for trying things out
    simulated: bool = False
    #: GPU model -> bytes of memory, where known
    memory: Mapping[str, int] = field(default_factory=dict)
    #: each GPU, as the service's ``summary`` has it; empty = only the numbers above are known
    devices: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_summary(cls, summary: object) -> Availability | None:
        """From the service's ``summary`` (``devices``, ``free``, ``queue``).

        None where it has another shape: nothing is known then, and the form says so.
        """
        try:
            devices: list[dict[str, Any]] = list(summary["devices"])  # type: ignore[index]
            counts = dict(summary["free"])  # type: ignore[index]
            totals: dict[str, int] = {}
            for device in devices:
                totals[str(device["model"])] = totals.get(str(device["model"]), 0) + 1
            return cls(
                free={m: (min(int(counts.get(m, 0)), n), n) for m, n in totals.items()},
                waiting=int(summary["queue"]),  # type: ignore[index]
                simulated=any(device["simulated"] for device in devices),
                memory={str(d["model"]): int(d["memory"]) for d in devices},
                devices=tuple(devices),
            )
        except (TypeError, ValueError, KeyError, AttributeError):
            return None

    def matching(self, resolved: ResolvedProfile) -> tuple[int, int]:
        """(free, total) of the GPUs that ``resolved`` could get."""
        pattern = (resolved.gpu_model or "*").casefold()
        least = resolved.gpu_min_memory or 0
        if self.devices:
            rows = [row for row in self.devices if _suits(row, resolved)]
            return sum(row.get("state") == "free" for row in rows), len(rows)
        pairs = [
            pair
            for model, pair in self.free.items()
            if fnmatchcase(model.casefold(), pattern) and self.memory.get(model, least) >= least
        ]
        return sum(free for free, _ in pairs), sum(total for _, total in pairs)


def _suits(row: Mapping[str, Any], resolved: ResolvedProfile) -> bool:
    """Whether ``resolved`` could get this GPU; what a row doesn't tell is no obstacle."""
    pattern, least = (resolved.gpu_model or "*").casefold(), resolved.gpu_min_capability
    capability = tuple(row.get("capability") or (0, 0))
    return (
        fnmatchcase(str(row["model"]).casefold(), pattern)
        and int(row["memory"]) >= (resolved.gpu_min_memory or 0)
        and (least is None or capability >= least)
        and (not resolved.gpu_devices or row.get("id") in resolved.gpu_devices)
        and resolved.node in (None, row.get("node"))
        and (resolved.pool is None or resolved.pool in row.get("pools", ()))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a user may expect of a profile now. ``tone`` is a Bootstrap colour."""

    tone: str
    text: str


def outlook(
    resolved: ResolvedProfile, availability: Availability | None, words: Words = _ENGLISH
) -> Outlook:
    """In words: whether a server of this profile would get its GPUs now. So does ``form.js``."""
    wanted = resolved.gpus
    if not wanted:
        return Outlook(tone="secondary", text=words("does not wait for a GPU"))
    if availability is None:
        return Outlook(tone="secondary", text=words("not known what is free"))
    free, total = availability.matching(resolved)
    if not total:
        return Outlook(tone="danger", text=words("cannot start: no GPU of this kind here"))
    if total < wanted:
        text = words("cannot start: only {total} of this kind here", total=total)
        return Outlook(tone="danger", text=text)
    numbers = {"free": free, "total": total, "n": availability.waiting}
    if availability.waiting:
        text = words("{free} of {total} free now, {n} waiting", **numbers)
        return Outlook(tone="warning", text=text)
    if free < wanted:
        text = words("{free} of {total} free now: your server would wait", **numbers)
        return Outlook(tone="warning", text=text)
    return Outlook(tone="success", text=words("{free} of {total} free now", **numbers))


def asks(settings: Mapping[str, Any]) -> str:
    """The settings that decide which GPUs would do, as JSON for the script of the form."""
    plain = {
        word: str(value) if word == "gpu_sharing" else value
        for word, value in settings.items()
        if word in _GPU_WORDS
    }
    return json.dumps(plain, sort_keys=True)


def live_form(form: str, service: str, language: str) -> str:
    """``form`` with the script that keeps it up to date. ``service``: path of the GPUs' pages."""
    if not service:
        return form
    return (
        f'<div id="gpus-live-form" data-prefix="{escape(service)}" '
        f'data-language="{escape(language)}">{form}</div>'
        f'<script type="module" src="{escape(service)}static/form.js"></script>'
    )


def render_form(
    profiles: Profiles,
    *,
    availability: Availability | None,
    groups: Iterable[str] = (),
    selected: object = None,
    defaults: Mapping[str, Any] | None = None,
    words: Words = _ENGLISH,
) -> str:
    """The HTML of the options form; never empty.

    ``selected``: options to begin with (those of the last spawn); what is wrong in them is
    ignored, and the defaults are shown. ``defaults``: what the spawner gives where a profile
    doesn't say, by the profile's words (``image``, ``cpu_limit``, ``mem_limit`` …; units as in
    :class:`ResolvedProfile`). ``words``: the texts in the user's language.
    """
    mine = frozenset(groups)
    view = _View(
        profiles=profiles,
        availability=availability,
        groups=mine,
        start=_start(profiles, mine, selected),
        defaults=defaults or {},
        words=words,
    )
    models = [
        {"name": model or "GPU", "free": free, "total": total}
        for model, (free, total) in (sorted(availability.free.items()) if availability else ())
    ]
    page: str = _template().render(
        cards=_without_common_image(
            [_card(profile, view) for profile in profiles.visible(mine)], words
        ),
        availability=availability,
        models=models,
        _=words,
        many=words.many,
    )
    return page


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """What all cards of one page share."""

    profiles: Profiles
    availability: Availability | None
    groups: frozenset[str]
    #: the profile that is selected at first; None where the user may use none
    start: ResolvedProfile | None
    defaults: Mapping[str, Any]
    words: Words


def _start(profiles: Profiles, groups: frozenset[str], selected: object) -> ResolvedProfile | None:
    for options in (selected, None):
        try:
            return profiles.resolve(options, groups=groups)
        except RequestError:
            continue
    return None


def _card(profile: Profile, view: _View) -> dict[str, Any]:
    """What the template shows of one profile."""
    profiles, groups, availability = view.profiles, view.groups, view.availability
    checked = view.start is not None and view.start.slug == profile.slug
    try:
        options = view.start.user_options if view.start and checked else {"profile": profile.slug}
        resolved = profiles.resolve(options, groups=groups)
    except RequestError as error:  # its defaults don't fit together for this user's groups
        return {
            "profile": profile,
            "checked": checked,
            "problem": error.user_message,
            "facts": [],
            "asks": "{}",
        }
    asked = [(n, o) for n, o in profile.profile_options.items() if _has_answers(o, groups)]
    by_option = {word for _, option in asked for word in _words(option)}

    def hint(name: str, key: str) -> str:
        """What is free for one choice, the others being as they are."""
        if not _GPU_WORDS & _words(profile.profile_options[name]):
            return ""
        others = {**resolved.user_options, name: key}
        others.pop(name + UNLISTED_SUFFIX, None)
        try:
            answer = profiles.resolve(others, groups=groups)
        except RequestError:
            return ""
        return f" ({outlook(answer, availability, view.words).text})"

    return {
        "profile": profile,
        "checked": checked,
        "problem": None,
        "gpus": resolved.gpus,
        "outlook": outlook(resolved, availability, view.words),
        "asks": asks(profile.spawner_override.settings()),
        "outlook_by_option": bool(_GPU_WORDS & by_option),
        "facts": [
            (label, value, word in by_option)
            for word, label, value in _facts(_complete(resolved, view.defaults), view.words)
        ],
        "options": [_question(resolved, name, option, groups, hint) for name, option in asked],
    }


def _without_common_image(cards: list[dict[str, Any]], words: Words) -> list[dict[str, Any]]:
    """Leave the image out where all profiles have the same: it helps nobody to choose."""
    label = words("Image")
    facts = [{fact for fact in card["facts"] if fact[0] == label} for card in cards]
    if len(cards) > 1 and facts[0] and all(fact == facts[0] for fact in facts):
        for card in cards:
            card["facts"] = [fact for fact in card["facts"] if fact[0] != label]
    return cards


def _question(
    resolved: ResolvedProfile,
    name: str,
    option: Option,
    groups: frozenset[str],
    hint: Callable[[str, str], str],
) -> dict[str, Any]:
    """One option as the template shows it."""
    chosen = dict(resolved.options)
    text = chosen.get(name + UNLISTED_SUFFIX)
    field_name = f"profile-option-{resolved.slug}--{name}"
    return {
        "name": field_name,
        "label": option.display_name,
        "choices": [
            {
                "key": key,
                "label": option.choices[key].display_name,
                "hint": hint(name, key),
                "chosen": key == chosen.get(name),
                "asks": asks(option.choices[key].spawner_override.settings()),
            }
            for key in visible_choices(option, groups)
        ],
        "own": option.unlisted_choice if may_type(option, groups) else None,
        "own_name": field_name + UNLISTED_SUFFIX,
        "own_value": UNLISTED,
        "own_selected": text is not None,
        "own_text": text or "",
    }


def _has_answers(option: Option, groups: frozenset[str]) -> bool:
    return bool(visible_choices(option, groups)) or may_type(option, groups)


def _words(option: Option) -> set[str]:
    """The settings that an option's answers change."""
    words = set(option.unlisted_choice.spawner_override)
    for choice in option.choices.values():
        words |= set(choice.spawner_override.settings())
    return words


def _complete(resolved: ResolvedProfile, defaults: Mapping[str, Any]) -> ResolvedProfile:
    """``resolved`` with the spawner's own values where the profile doesn't say."""
    silent = {word: v for word, v in defaults.items() if getattr(resolved, word, 0) is None}
    return replace(resolved, **silent)


def _facts(resolved: ResolvedProfile, words: Words) -> list[tuple[str, str, str]]:
    """(setting, name, value) of what a server gets, in the order people ask for it."""
    facts = [("gpus", words("GPUs"), str(resolved.gpus or words("none")))]
    if resolved.gpus and resolved.gpu_model:
        facts.append(("gpu_model", words("Model"), resolved.gpu_model.strip("*") or words("any")))
    if resolved.gpus and resolved.gpu_min_memory:
        least = format_memory(resolved.gpu_min_memory)
        facts.append(
            ("gpu_min_memory", words("GPU memory"), words("at least {least}", least=least))
        )
    if resolved.gpus and resolved.gpu_memory_limit:
        most = format_memory(resolved.gpu_memory_limit)
        facts.append(("gpu_memory_limit", words("GPU memory"), words("at most {most}", most=most)))
    if resolved.gpus and resolved.gpu_min_capability:
        least = "{}.{}".format(*resolved.gpu_min_capability)
        facts.append(
            (
                "gpu_min_capability",
                words("Compute capability"),
                words("at least {least}", least=least),
            )
        )
    if resolved.node or resolved.pool:
        facts.append(
            ("node", words("Machine"), resolved.node or words("one of {pool}", pool=resolved.pool))
        )
    if resolved.cpu_limit:
        facts.append(("cpu_limit", words("CPUs"), f"{resolved.cpu_limit:g}"))
    if resolved.mem_limit:
        facts.append(("mem_limit", words("Memory"), format_memory(resolved.mem_limit)))
    if resolved.length:
        number, _, unit = format_duration(resolved.length).partition(" ")
        facts.append(("length", words("Length"), words(f"{{n}} {unit}", n=number)))
    if resolved.image:
        facts.append(("image", words("Image"), resolved.image))
    return facts


@lru_cache(maxsize=1)
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("jupyterhub_gpuspawner.profiles"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("form.html")
