"""Profiles: what users may choose, in KubeSpawner's words.

``parse_profiles`` checks an admin's ``profile_list`` once, at start. ``Profiles.resolve`` checks
a user's options at each spawn, whatever door they came through. ``render_form`` shows the choice.
All of it is pure: nothing here reads a clock, a disk (but for the template) or the network.
"""

from .companions import Companion
from .form import Availability, live_form, render_form
from .models import Choice, Option, Overrides, Profile, UnlistedChoice
from .parse import DEFAULT_PROFILE_LIST, parse_profiles
from .resolve import Profiles, ResolvedProfile, options_from_form, to_request

__all__ = [
    "DEFAULT_PROFILE_LIST",
    "Availability",
    "Choice",
    "Companion",
    "Option",
    "Overrides",
    "Profile",
    "Profiles",
    "ResolvedProfile",
    "UnlistedChoice",
    "live_form",
    "options_from_form",
    "parse_profiles",
    "render_form",
    "to_request",
]
