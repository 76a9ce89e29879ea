"""From a user's options to what a server gets; checked again at every spawn.

Options are any JSON: the REST API bypasses the form, and the Hub re-uses options that it stored
under an older configuration. So nothing of them is trusted, and what can't be understood is a
:class:`RequestError`, never another exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ..errors import RequestError
from ..scheduler.models import GPURequest, Mode
from .companions import Companion
from .models import UNLISTED, Option, Overrides, Profile, may_see, nearest

#: longest text that an unlisted choice may give
MAX_VALUE = 256
#: suffix of the option that carries the text of an unlisted choice
UNLISTED_SUFFIX = f"--{UNLISTED}"

_FORM_PREFIX = "profile-option-"
#: arguments of the Hub's own that arrive with a form or a link
_OF_THE_HUB = frozenset({"_xsrf", "next", "display_name"})
_QUOTED = re.compile(r'"([^"]*)"')
_UNSAFE = re.compile(r"[^\w .,:;/@+=*()-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedProfile:
    """What one spawn asks for. None: the profile doesn't say, the spawner's trait decides."""

    #: slug of the profile
    slug: str
    #: its name for people
    display_name: str
    #: the options as chosen, defaults filled in: (name, key) pairs
    options: tuple[tuple[str, str], ...] = ()
    image: str | None = None
    #: number of GPUs
    gpus: int = 0
    #: fnmatch pattern on the GPU's name
    gpu_model: str | None = None
    #: least bytes of GPU memory
    gpu_min_memory: int | None = None
    gpu_sharing: Mode | None = None
    #: most bytes of each GPU's memory; only where MPS enforces it
    gpu_memory_limit: int | None = None
    #: least CUDA compute capability
    gpu_min_capability: tuple[int, int] | None = None
    #: ids of the only GPUs that will do
    gpu_devices: tuple[str, ...] = ()
    #: the only machine that will do
    node: str | None = None
    #: pool of machines
    pool: str | None = None
    #: processors; 0 = no limit
    cpu_limit: float | None = None
    cpu_guarantee: float | None = None
    #: bytes; 0 = no limit
    mem_limit: int | None = None
    mem_guarantee: int | None = None
    #: bytes on top of ``mem_limit``; -1 = all the machine has
    swap: int | None = None
    #: processes; 0 = no limit
    pids_limit: int | None = None
    #: bytes
    shm_size: int | None = None
    #: name -> (soft, hard), -1 = no end
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    #: source -> where and how it is mounted, as ``volumes`` of the spawner
    volumes: Mapping[str, Any] = field(default_factory=dict)
    #: path in the container -> mount, as ``mounts`` of the spawner
    mounts: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    #: seconds it is expected to be needed
    length: float | None = None
    #: containers beside it
    companions: Mapping[str, Companion] = field(default_factory=dict)
    cmd: tuple[str, ...] | None = None
    default_url: str | None = None

    @property
    def user_options(self) -> dict[str, str]:
        """Options that resolve to this again; what should be stored and shown."""
        return {"profile": self.slug, **dict(self.options)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiles:
    """The checked profiles, in the admin's order. Never empty; slugs are unique."""

    items: tuple[Profile, ...]

    def visible(self, groups: Iterable[str] = ()) -> tuple[Profile, ...]:
        """Those that a member of ``groups`` may use."""
        mine = frozenset(groups)
        return tuple(profile for profile in self.items if may_see(profile, mine))

    def default(self, groups: Iterable[str] = ()) -> Profile | None:
        """The one marked ``default``, else the first visible one; None if there is none."""
        visible = self.visible(groups)
        return next((p for p in visible if p.default), next(iter(visible), None))

    def resolve(
        self, user_options: object, *, username: str = "", groups: Iterable[str] = ()
    ) -> ResolvedProfile:
        """What ``user_options`` ask for, e.g. ``{"profile": "small", "gpus": "two"}``.

        None and ``{}`` mean the default profile. An option that isn't given takes its default.

        Raises
        ------
        RequestError
            The options are not such a mapping, or name something that doesn't exist or isn't
            open to ``groups``. ``user_message`` is plain text, short, and safe to show.
        """
        mine = frozenset(groups)
        try:
            options = _as_mapping(user_options)
            profile = self._choose(options, mine)
            return _resolve(profile, options, mine)
        except RequestError as error:
            # People paste anything, tokens too: of a user's words the log has the beginning.
            told = _QUOTED.sub(_beginning, error.user_message)
            text = f"{username!r:.80}: options refused: {told}"
            raise RequestError(text, error.user_message) from None

    def _choose(self, options: Mapping[str, object], groups: frozenset[str]) -> Profile:
        slug = options.get("profile")
        if "profile" not in options:
            profile = self.default(groups)
            if profile is None:
                raise RequestError("No profile is open to you. Please ask an administrator.")
            return profile
        if not isinstance(slug, str):
            raise RequestError("The profile must be given by its name, as text.")
        known = {profile.slug: profile for profile in self.items}
        if slug not in known:
            raise RequestError(f'Profile "{safe(slug)}" no longer exists; please choose again.')
        if not may_see(known[slug], groups):
            raise RequestError(f'Profile "{safe(slug)}" is not open to your groups.')
        return known[slug]


def options_from_form(formdata: Mapping[str, Any]) -> dict[str, Any]:
    """The Hub's form or query data (name -> list of texts) as ``user_options``.

    Only translates names, has no side effect and never raises: what is wrong with the values is
    said by :meth:`Profiles.resolve`. Fields of the profiles that were not chosen are dropped, as
    the browser sends those too. A link may use plain names: ``?profile=small&gpus=two``.
    """
    given = {name: _single(values) for name, values in formdata.items() if name not in _OF_THE_HUB}
    slug = given.get("profile")
    options: dict[str, Any] = {n: v for n, v in given.items() if not n.startswith(_FORM_PREFIX)}
    prefix = f"{_FORM_PREFIX}{slug}--"
    options.update({n[len(prefix) :]: v for n, v in given.items() if n.startswith(prefix)})
    for name in [n for n in options if n.endswith(UNLISTED_SUFFIX)]:
        chosen = name.removesuffix(UNLISTED_SUFFIX)
        if options.get(chosen) in (UNLISTED, "unlisted_choice"):
            del options[chosen]
        elif chosen in options or options[name] == "":
            del options[name]  # a list beside it has another value, or it was left empty
    return options


def to_request(resolved: ResolvedProfile) -> GPURequest:
    """What the scheduler is asked for. Device wishes count only where a device is asked for."""
    wanted = resolved.gpus > 0
    beside = resolved.companions.values()
    return GPURequest(
        count=resolved.gpus,
        model=resolved.gpu_model if wanted else None,
        min_memory=(resolved.gpu_min_memory or 0) if wanted else 0,
        sharing=(resolved.gpu_sharing if wanted else None) or Mode.EXCLUSIVE,
        length=resolved.length,
        cpu=(resolved.cpu_limit or 0.0) + sum(one.cpu_limit for one in beside),
        memory=(resolved.mem_limit or 0) + sum(one.mem_limit for one in beside),
        cap=(resolved.gpu_memory_limit or 0) if wanted else 0,
        min_capability=resolved.gpu_min_capability if wanted else None,
        node=resolved.node,
        pool=resolved.pool,
        devices=resolved.gpu_devices if wanted else (),
        image=resolved.image or "",
    )


def merge(layers: Iterable[Overrides]) -> dict[str, Any]:
    """The settings of all layers; later ones win, mappings are merged.

    Raises pydantic's ``ValidationError`` where they don't agree with each other.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.settings().items():
            merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    return Overrides.model_validate(merged).settings()


def safe(text: str) -> str:
    """A user's text as it may be repeated to people: short, one line, without markup."""
    shown = _UNSAFE.sub("?", text[:40])
    return shown if len(text) <= 40 else shown + "…"


def _beginning(quoted: re.Match[str]) -> str:
    """The first 12 characters of what stands in quotes."""
    text = quoted[1]
    return f'"{text}"' if len(text) <= 12 else f'"{text[:12]}…"'


def _as_mapping(user_options: object) -> Mapping[str, object]:
    if user_options is None:
        return {}
    if not isinstance(user_options, Mapping):
        raise RequestError(
            "The options must be a mapping of names to values, "
            'such as {"profile": "small"}; please choose again.'
        )
    if len(user_options) > 100 or not all(isinstance(name, str) for name in user_options):
        raise RequestError("The options must be at most 100 named values; please choose again.")
    return user_options


def _resolve(
    profile: Profile, options: Mapping[str, object], groups: frozenset[str]
) -> ResolvedProfile:
    _check_names(profile, options)
    chosen: dict[str, str] = {}
    layers = [profile.spawner_override]
    for name, option in profile.profile_options.items():
        picked = _pick(name, option, options, groups)
        if picked is not None:
            key, value, overrides = picked
            chosen[key] = value
            layers.append(overrides)
    try:
        settings = merge(layers)
    except ValidationError as error:
        raise RequestError(
            f"These options do not fit together: {_plain(error)}. Please choose again."
        ) from None
    if "gpu_devices" in settings:
        settings["gpus"] = len(settings["gpu_devices"])
    return ResolvedProfile(
        slug=profile.slug,
        display_name=profile.display_name,
        options=tuple(chosen.items()),
        **settings,
    )


def _check_names(profile: Profile, options: Mapping[str, object]) -> None:
    known = {"profile", *profile.profile_options}
    known |= {name + UNLISTED_SUFFIX for name in profile.profile_options}
    for name in options:
        if name not in known:
            hint = nearest(name, sorted(known - {"profile"}))
            raise RequestError(
                f'Profile "{profile.slug}" has no option "{safe(name)}"{hint}; please choose again.'
            )


def _pick(
    name: str, option: Option, options: Mapping[str, object], groups: frozenset[str]
) -> tuple[str, str, Overrides] | None:
    """(option name, value, its settings), or None where the user's groups leave nothing."""
    keys = visible_choices(option, groups)
    own = name + UNLISTED_SUFFIX
    if own in options:
        if options.get(name, UNLISTED) != UNLISTED:
            raise RequestError(f'Option "{name}": give a choice or a value of your own, not both.')
        return own, *_unlisted(name, option, options[own], groups)
    key = options[name] if name in options else option.default_among(keys)
    if name not in options and key is None:
        return None
    if not isinstance(key, str):
        raise RequestError(f'Option "{name}" must be given as text.')
    if key not in keys:
        shown = ", ".join(safe(k) for k in keys[:10])
        raise RequestError(f'Option "{name}" can\'t be "{safe(key)}"; it can be: {shown}.')
    return name, key, option.choices[key].spawner_override


def visible_choices(option: Option, groups: frozenset[str]) -> list[str]:
    """Keys of the choices open to ``groups``, in the admin's order."""
    return [key for key, choice in option.choices.items() if may_see(choice, groups)]


def may_type(option: Option, groups: frozenset[str]) -> bool:
    """Whether a text of one's own is open to ``groups``."""
    return option.unlisted_choice.enabled and may_see(option.unlisted_choice, groups)


def _unlisted(
    name: str, option: Option, text: object, groups: frozenset[str]
) -> tuple[str, Overrides]:
    unlisted = option.unlisted_choice
    if not may_type(option, groups):
        raise RequestError(f'Option "{name}" takes only the listed choices.')
    message = unlisted.validation_message or "it does not have the form that is asked for"
    if not isinstance(text, str):
        raise RequestError(f'Option "{name}" must be given as text.')
    if len(text) > MAX_VALUE:
        raise RequestError(f'Option "{name}": the value is longer than {MAX_VALUE} characters.')
    if not re.fullmatch(unlisted.validation_regex or "", text):
        raise RequestError(f'Option "{name}": "{safe(text)}" is not accepted: {message}')
    try:
        return text, unlisted.fill(text)
    except ValidationError as error:
        raise RequestError(
            f'Option "{name}": "{safe(text)}" is not accepted: {_plain(error)}'
        ) from None


def _plain(error: ValidationError) -> str:
    """What pydantic's first problem says, without the value."""
    problem = error.errors(include_url=False, include_input=False)[0]
    cause = problem.get("ctx", {}).get("error")
    return _UNSAFE.sub("?", str(cause) if cause is not None else str(problem["msg"]))[:200]


def _single(values: object) -> Any:
    """The one text of a form field; None for anything else, which no check accepts."""
    if isinstance(values, str):
        return values
    if isinstance(values, (list, tuple)) and len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return None
