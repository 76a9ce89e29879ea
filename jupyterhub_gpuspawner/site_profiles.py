"""The profiles of a site, from environment variables: what ``jupyterhub_config.py`` offers."""

from __future__ import annotations

from typing import Any

import yaml

from . import environment
from .errors import ConfigError
from .kinds import one_line
from .profiles import parse_profiles

FILE = "GPUS_PROFILES_FILE"
GROUPS = "GPUS_PROFILE_GROUPS"


def site_profiles(default: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ``profile_list`` in the file that GPUS_PROFILES_FILE names, else ``default``.

    GPUS_PROFILE_GROUPS (``{"gpu2": ["research"]}``, by slug) says which groups of the Hub may use
    a profile, above what the list itself says. SystemExit: one line.
    """
    profiles = _read() or default
    wanted = environment.lists(GROUPS, '{"gpu2": ["research"]}')
    try:
        slugs = [profile.slug for profile in parse_profiles(profiles).items]
    except ConfigError as error:
        raise SystemExit(f"{FILE}: {one_line(error)}") from None
    for slug in wanted:
        if slug not in slugs:
            raise SystemExit(
                f"{GROUPS}: there is no profile {slug!r}; there are {', '.join(slugs)}"
            )
    return [
        {**profile, "allowed_groups": wanted[slug]} if slug in wanted else profile
        for slug, profile in zip(slugs, profiles, strict=True)
    ]


def _read() -> list[dict[str, Any]] | None:
    path = environment.file(FILE)
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as source:
            found = yaml.safe_load(source)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SystemExit(f"{FILE} {path!r}: {one_line(error)}") from None
    if not isinstance(found, list) or not found:
        raise SystemExit(f"{FILE} {path!r}: want a list of profiles, as c.…profile_list has them")
    return found
