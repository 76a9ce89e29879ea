"""From an admin's ``profile_list`` to :class:`Profiles`, or one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigError
from ..units import show_value
from .models import Profile
from .resolve import Profiles, merge

#: what a Hub offers whose admin has not written a list
DEFAULT_PROFILE_LIST: list[dict[str, Any]] = [
    {
        "display_name": "1 GPU",
        "slug": "gpu",
        "description": "A server with one GPU that nobody else uses.",
        "default": True,
        "spawner_override": {"gpus": 1},
    },
    {
        "display_name": "No GPU",
        "slug": "cpu",
        "description": "For editing, preparing data and looking at results. Never waits for a GPU.",
        "spawner_override": {"gpus": 0},
    },
]


def parse_profiles(profile_list: object) -> Profiles:
    """Check a ``profile_list`` and return its profiles in the same order.

    Raises
    ------
    ConfigError
        One line that names the profile, the field, the value and what is allowed.
    """
    if not isinstance(profile_list, (list, tuple)):
        raise ConfigError(f"profile_list: must be a list, not {type(profile_list).__name__}")
    if not profile_list:
        raise ConfigError("profile_list: is empty; give at least one profile")
    profiles = tuple(_parse_one(number, data) for number, data in enumerate(profile_list, 1))
    _check_unique(profiles)
    for profile in profiles:
        _check_combinations(profile)
    return Profiles(items=profiles)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The path and the text of the first problem that pydantic found; neither has line breaks."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part)[:60] for part in problem["loc"])
    cause = problem.get("ctx", {}).get("error")
    if problem["type"] == "missing":
        text = "is missing"
    else:
        text = str(cause) if cause is not None else problem["msg"]
        given = problem["input"]
        # memory and time name the value in their own text; an environment may hold secrets
        shown = isinstance(given, (str, int, float)) and not path.endswith("environment")
        if shown and not text.startswith(show_value(given)):
            text = f"{show_value(given)} {text}"
    return path, " ".join(text.split())


def _parse_one(number: int, data: object) -> Profile:
    name = data.get("display_name", data.get("slug")) if isinstance(data, Mapping) else None
    who = f'profile "{name[:60]}"' if isinstance(name, str) and name else f"profile {number}"
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        path, text = first_problem(error)
        more = error.error_count() - 1
        tail = f" (and {more} more {'problem' if more == 1 else 'problems'})" if more else ""
        where = f"{path}: " if path else ""
        raise ConfigError(f"profile_list: {who}: {where}{text}{tail}") from None


def _check_unique(profiles: tuple[Profile, ...]) -> None:
    seen: dict[str, Profile] = {}
    for profile in profiles:
        other = seen.setdefault(profile.slug, profile)
        if other is not profile:
            raise ConfigError(
                f'profile_list: profiles "{other.display_name}" and "{profile.display_name}" have '
                f'the same slug "{profile.slug}"; give one of them another "slug"'
            )
    marked = [profile.display_name for profile in profiles if profile.default]
    if len(marked) > 1:
        names = " and ".join(f'"{name}"' for name in marked)
        raise ConfigError(f"profile_list: {names} are all marked default; keep one")


def _check_combinations(profile: Profile) -> None:
    """Each choice, with nothing else changed, must give settings that agree with each other.

    Two choices that disagree only together are found at the spawn: all combinations may be
    far too many.
    """
    for name, option in profile.profile_options.items():
        for key, choice in option.choices.items():
            try:
                merge([profile.spawner_override, choice.spawner_override])
            except ValidationError as error:
                _, text = first_problem(error)
                raise ConfigError(
                    f'profile_list: profile "{profile.display_name}": '
                    f"profile_options.{name}.choices.{key}: {text}"
                ) from None
