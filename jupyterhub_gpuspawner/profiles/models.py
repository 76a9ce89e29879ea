"""The shape of a ``profile_list``: KubeSpawner's words, a closed list of settings.

``spawner_override`` is the word here; ``kubespawner_override`` means the same, so that a list
can be moved between the two. Unknown words are errors: a misspelt limit must not be silence.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, field_validator, model_validator

from . import fields
from .companions import parse_companions
from .mounts import WORDS as MOUNT_WORDS
from .mounts import Mounts, Volumes
from .words import Strict
from .words import nearest as nearest

#: the value a form sends for "something else"; so no choice may have this key
UNLISTED = "unlisted-choice"
#: what an unlisted choice's override replaces by the user's text
PLACEHOLDER = "{value}"

_OVERRIDE_WORDS = ("spawner_override", "kubespawner_override")
_SLUG = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*", re.ASCII)
_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", re.ASCII)
_CHOICE_KEY = re.compile(r"[^\s\x00-\x1f\x7f](.{0,98}[^\s\x00-\x1f\x7f])?")


Companions = Annotated[dict[str, Any], BeforeValidator(parse_companions)]


class Overrides(Strict):
    """The settings that a profile or a choice may change. None: the spawner's own trait decides."""

    #: image of the server
    image: fields.Image | None = None
    #: number of GPUs; None counts as 0
    gpus: fields.GPUs | None = None
    #: pattern on the GPU's name, e.g. ``*A100*``
    gpu_model: fields.Model | None = None
    #: least GPU memory, bytes or ``"40G"``
    gpu_min_memory: fields.Memory | None = None
    #: ``exclusive``, ``slots`` or ``mig``
    gpu_sharing: fields.Sharing | None = None
    #: most memory of each GPU that it may have, bytes or ``"10G"``; enforced by MPS, else refused
    gpu_memory_limit: fields.Memory | None = None
    #: least CUDA compute capability, e.g. ``"8.0"``
    gpu_min_capability: fields.Capability | None = None
    #: ids of the only GPUs that will do; ``gpus`` is their number. Only for admins of the Hub
    gpu_devices: fields.DeviceIds | None = None
    #: name of the only machine that will do
    node: fields.Name | None = None
    #: name of a pool of machines (``node_pools`` of the scheduler)
    pool: fields.Name | None = None
    #: processors it may use at most; 0 = no limit
    cpu_limit: fields.CPUs | None = None
    #: processors it is promised
    cpu_guarantee: fields.CPUs | None = None
    #: bytes or ``"8G"``; 0 = no limit
    mem_limit: fields.MemoryLimit | None = None
    #: bytes or ``"2G"`` it is promised
    mem_guarantee: fields.MemoryLimit | None = None
    #: bytes of swap on top of ``mem_limit``; 0 = none, -1 = all the machine has
    swap: fields.Swap | None = None
    #: processes and threads it may have; 0 = no limit
    pids_limit: fields.Count | None = None
    #: size of ``/dev/shm``, bytes or ``"1G"``
    shm_size: fields.Memory | None = None
    #: name -> number, or [soft, hard]
    ulimits: fields.Ulimits | None = None
    #: volumes and folders in the server, added to ``c.GPUDockerSpawner.volumes``, in its words
    volumes: Volumes | None = None
    #: mounts of any kind, added to ``c.GPUDockerSpawner.mounts``, in its words
    mounts: Mounts | None = None
    #: variables added to the server's environment
    environment: fields.Environment | None = None
    #: how long it is expected to be needed, seconds or ``"4h"``
    length: fields.Duration | None = None
    #: containers beside it, by their name on the user's network: see the how-to
    companions: Companions | None = None
    #: command that starts the server
    cmd: fields.Command | None = None
    #: page that opens first, e.g. ``/lab``
    default_url: fields.URLPath | None = None

    @model_validator(mode="after")
    def _guarantee_fits_in_limit(self) -> Overrides:
        for kind in ("cpu", "mem"):
            limit, guarantee = getattr(self, f"{kind}_limit"), getattr(self, f"{kind}_guarantee")
            if limit and guarantee and guarantee > limit:
                raise ValueError(f"{kind}_guarantee is above {kind}_limit")
        return self

    @model_validator(mode="after")
    def _as_many_gpus_as_named(self) -> Overrides:
        named = self.gpu_devices
        if named and self.gpus is not None and self.gpus != len(named):
            raise ValueError(f"gpus is {self.gpus}, and gpu_devices names {len(named)}")
        return self

    def settings(self) -> dict[str, Any]:
        """The words that were given, with their checked values."""
        given = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in given if value is not None}


class Choice(Strict):
    """One value of an option."""

    aliases = {_OVERRIDE_WORDS[1]: _OVERRIDE_WORDS[0]}

    display_name: fields.PlainText
    default: fields.Flag = False
    #: only members of one of these groups see it; None = everybody
    allowed_groups: fields.Groups | None = None
    spawner_override: Overrides = Overrides()


class UnlistedChoice(Strict):
    """A text of the user's own, where the admin's regular expression matches all of it.

    In the override, ``{value}`` stands for the text. The result is checked like any setting.
    """

    aliases = {_OVERRIDE_WORDS[1]: _OVERRIDE_WORDS[0]}

    enabled: fields.Flag = False
    #: label of the text field
    display_name: fields.PlainText = "Other value"
    #: what it is called among the choices
    display_name_in_choices: fields.PlainText = "Other…"
    #: must match the whole text. KubeSpawner allows everything by default; here nothing is
    validation_regex: fields.Regex | None = None
    #: what the user reads when it doesn't match
    validation_message: fields.PlainText | None = None
    #: only members of one of these groups see it; None = everybody
    allowed_groups: fields.Groups | None = None
    #: settings; texts may hold ``{value}``, and are checked when a user has given one
    spawner_override: dict[str, Any] = {}

    @field_validator("spawner_override")
    @classmethod
    def _fits_but_for_the_text(cls, override: dict[str, Any]) -> dict[str, Any]:
        """What can be known before a user gives a text: words, fixed values, variables' names."""
        Overrides.model_validate(dict.fromkeys(override))
        Overrides.model_validate({w: v for w, v in override.items() if not _has_placeholder(v)})
        for word in MOUNT_WORDS:
            if _has_placeholder(override.get(word)):
                raise ValueError(f"{word}: no text of a user's may name what is mounted, or where")
        names = override.get("environment")
        if isinstance(names, Mapping):
            Overrides.model_validate({"environment": dict.fromkeys(names, "")})
        return override

    @model_validator(mode="after")
    def _complete(self) -> UnlistedChoice:
        if not self.enabled:
            return self
        if self.validation_regex is None:
            raise ValueError("validation_regex is missing: without it any text would be allowed")
        if not self.spawner_override:
            raise ValueError(
                'spawner_override is missing: say what the text sets, such as {"image": "{value}"}'
            )
        return self

    def fill(self, text: str) -> Overrides:
        """The settings for a user's text. Raises pydantic's error where it isn't acceptable."""
        return Overrides.model_validate(_replace(self.spawner_override, text))


class Option(Strict):
    """A question that a profile asks: choices, and perhaps a text of one's own."""

    display_name: fields.PlainText
    choices: dict[str, Choice] = {}
    unlisted_choice: UnlistedChoice = UnlistedChoice()

    @model_validator(mode="after")
    def _has_choices(self) -> Option:
        if not self.choices and not self.unlisted_choice.enabled:
            raise ValueError("choices is empty: give at least one choice")
        for key in self.choices:
            if not _CHOICE_KEY.fullmatch(key) or key in (UNLISTED, "unlisted_choice"):
                raise ValueError(f'choices: "{key[:60]}" can\'t be the key of a choice')
        _at_most_one_default("choices", self.choices)
        return self

    def default_among(self, keys: Iterable[str]) -> str | None:
        """The key marked ``default``, else the first, as in KubeSpawner; None without any."""
        visible = list(keys)
        return next((k for k in visible if self.choices[k].default), next(iter(visible), None))


class Profile(Strict):
    """One entry of the ``profile_list``."""

    aliases = {_OVERRIDE_WORDS[1]: _OVERRIDE_WORDS[0]}

    display_name: fields.PlainText
    #: its name in options, URLs and on the admin page; made from ``display_name`` if not given
    slug: str = ""
    description: fields.LongText = ""
    #: chosen where a user chose nothing; else the first
    default: fields.Flag = False
    #: only members of one of these groups may use it; None = everybody
    allowed_groups: fields.Groups | None = None
    profile_options: dict[str, Option] = {}
    spawner_override: Overrides = Overrides()

    @model_validator(mode="before")
    @classmethod
    def _slug_given(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("display_name"), str):
            return {**data, "slug": data.get("slug", slugify(data["display_name"]))}
        return data

    @model_validator(mode="after")
    def _names_fit_a_form(self) -> Profile:
        if not _SLUG.fullmatch(self.slug) or len(self.slug) > 63:
            raise ValueError(
                f'slug: "{self.slug[:60]}" must be at most 63 of a-z, 0-9, and single . _ - between'
            )
        for name in self.profile_options:
            if not _OPTION_NAME.fullmatch(name) or len(name) > 63 or name == "profile":
                raise ValueError(
                    f'profile_options: "{name[:60]}" can\'t be the name of an option; use letters, '
                    "digits, and single _ or - between"
                )
        return self

    def has_companions(self) -> bool:
        """Whether it, or one of its choices, starts containers beside a server."""
        options = self.profile_options.values()
        overrides = [choice.spawner_override for one in options for choice in one.choices.values()]
        return any(one.companions for one in (self.spawner_override, *overrides)) or any(
            one.unlisted_choice.spawner_override.get("companions") for one in options
        )


def slugify(display_name: str) -> str:
    """``small-gpu`` for ``Small GPU``; a hash of the name where no letter of it is ASCII.

    >>> slugify("Größe 2 (A100)")
    'grosse-2-a100'
    """
    folded = unicodedata.normalize("NFKD", display_name.casefold())
    words = re.findall("[a-z0-9]+", folded.encode("ascii", "ignore").decode())
    slug = "-".join(words)[:63].strip("-")
    return slug or "profile-" + hashlib.sha256(display_name.encode()).hexdigest()[:8]


def may_see(item: Profile | Choice | UnlistedChoice, groups: frozenset[str]) -> bool:
    """Whether somebody in ``groups`` may use it."""
    return item.allowed_groups is None or not groups.isdisjoint(item.allowed_groups)


def _at_most_one_default(where: str, items: Mapping[str, Choice]) -> None:
    marked = [key for key, choice in items.items() if choice.default]
    if len(marked) > 1:
        raise ValueError(f"{where}: {' and '.join(marked[:3])} are all marked default; keep one")


def _has_placeholder(value: object) -> bool:
    if isinstance(value, str):
        return PLACEHOLDER in value
    if isinstance(value, dict):
        return any(_has_placeholder(part) for pair in value.items() for part in pair)
    return isinstance(value, (list, tuple)) and any(_has_placeholder(part) for part in value)


def _replace(value: Any, text: str) -> Any:
    """``value`` with the placeholder replaced. Never ``str.format``: it would read attributes."""
    if isinstance(value, str):
        return value.replace(PLACEHOLDER, text)
    if isinstance(value, dict):
        return {key: _replace(part, text) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(part, text) for part in value]
    return value
