"""What every GPU spawner does, whatever its engine: choose, ask, wait, and tell.

:class:`GPUSpawnerMixin` turns a user's options into a request, waits for the lease in
``run_pre_spawn_hook`` (outside the Hub's ``start_timeout``), and reports progress. The engine's
class starts and stops the container.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyterhub.spawner import Spawner
from jupyterhub.utils import maybe_future
from sqlalchemy.orm import object_session
from traitlets import Any as AnyTrait
from traitlets import Dict, Integer, List, default, validate

from .client import Ask, Granted
from .errors import GPUSpawnerError, RefusedError, SchedulerUnavailable
from .kinds import Name
from .limit_traits import LIMIT_TRAITS, LimitTraits, plain_values
from .notice import LastEnd, with_notice
from .profiles import (
    Availability,
    Profiles,
    ResolvedProfile,
    live_form,
    options_from_form,
    parse_profiles,
    render_form,
    to_request,
)
from .progress import Progress
from .refusal import refusal
from .scheduler.models import Reason
from .scheduler_link import SchedulerLink

#: the profile of a Hub without a ``profile_list``: everything comes from the traits
ONLY_TRAITS = [{"display_name": "Server", "slug": "server"}]

#: seconds the spawn page waits for the scheduler before it says that nothing is known
FORM_PATIENCE = 2.0

if TYPE_CHECKING:

    class _Base(LimitTraits, SchedulerLink, Spawner):
        environment: Any
        mounted: Callable[[ResolvedProfile], dict[str, Any]]

else:
    # at run time a mixin: it stands before DockerSpawner or SwarmSpawner, which are Spawners
    class _Base(LimitTraits, SchedulerLink):
        pass


class GPUSpawnerMixin(_Base):
    """Profiles, request, waiting and progress of a GPU spawner."""

    profile_list = List(
        trait=Dict(),
        config=True,
        help="""
        What users can choose, in KubeSpawner's words.

        A list of dicts, each with ``display_name`` and, as needed, ``slug``, ``description``,
        ``default``, ``allowed_groups``, ``spawner_override`` and ``profile_options``. It is
        checked when the Hub starts (a mistake is one clear line and the Hub does not start) and
        again at each spawn, because the REST API bypasses the form. Empty: one profile that
        takes everything from the spawner's traits.

        Example::

            c.GPUDockerSpawner.profile_list = [
                {
                    "display_name": "One GPU",
                    "default": True,
                    "spawner_override": {"gpus": 1, "mem_limit": "16G", "cpu_limit": 4},
                },
                {"display_name": "No GPU", "spawner_override": {"mem_limit": "4G"}},
            ]

        .. versionadded:: 0.1
        """,
    )

    hub_name = Name(
        "jupyterhub",
        config=True,
        help="""
        Name of this Hub in names of containers and in owner ids of homes.

        Text. Keep it for the life of the installation: homes are lost from sight when it
        changes.

        .. versionadded:: 0.1
        """,
    )

    start_timeout = Integer(
        300,
        min=1,
        config=True,
        help="""
        Seconds from the grant of the GPUs until the server answers.

        Waiting in the queue and pulling the image don't count. Past it the start is given up
        and the GPUs are free again.
        """,
    )

    # any JSON reaches this by the API; a Dict trait would keep Hub 5 from starting again
    user_options = AnyTrait(help="Options of the spawn, as they came in. Checked at each spawn.")

    @default("user_options")
    def _no_options(self) -> dict[str, Any]:
        return {}

    @default("options_form")
    def _our_form(self) -> Callable[[Any], Awaitable[str]]:
        return lambda spawner: spawner.render_options_form()

    @default("options_from_form")
    def _our_reading(self) -> Callable[[Any], dict[str, Any]]:
        return options_from_form

    @default("apply_user_options")
    def _nothing_to_apply(self) -> Callable[[Any, Any], None]:
        # what options ask for is resolved in run_pre_spawn_hook, where a refusal is readable
        return lambda spawner, options: None

    @validate("profile_list")
    def _check_profiles(self, proposal: Any) -> Any:
        if proposal.value:
            _parse(proposal.value)
        return proposal.value

    def __init__(self, **kwargs: Any) -> None:
        self._granted: Granted | None = None
        self._resolved: ResolvedProfile | None = None
        #: how the last server ended, if its user did not ask for it
        self.last_end: LastEnd | None = None
        #: a start took the lease, and gives it back whatever happens
        self._taken = False
        self._giving_back: asyncio.Task[None] | None = None
        self._progress = Progress()
        self._configured: dict[str, Any] = {}
        super().__init__(**kwargs)

    # -- what is shared --------------------------------------------------------------------

    @property
    def profiles(self) -> Profiles:
        """The checked profiles."""
        return _parse(self.profile_list)

    @property
    def _groups(self) -> tuple[str, ...]:
        return tuple(sorted(group.name for group in self.user.groups))

    # -- the form --------------------------------------------------------------------------

    async def render_options_form(self) -> str:
        """The options form, with what is free now and how the last server ended."""
        stored = self.orm_spawner.user_options if self.orm_spawner else None
        form = render_form(
            self.profiles,
            availability=await self._availability(),
            groups=self._groups,
            selected=stored,
            # not those of a start that is under way, which the pending page shows this form beside
            defaults={**self._limits_now(), **plain_values(self._configured)},
            words=self.words,
        )
        return with_notice(live_form(form, self.gpus_service, self.language), self.last_end)

    async def _availability(self) -> Availability | None:
        try:
            summary = await asyncio.wait_for(self.scheduler.summary(), FORM_PATIENCE)
        except (GPUSpawnerError, asyncio.TimeoutError) as error:
            self.log.warning("%s: the form can't show what is free: %s", self._log_name, error)
            return None
        return Availability.from_summary(summary)

    # -- asking and waiting ----------------------------------------------------------------

    async def run_pre_spawn_hook(self) -> None:
        """Resolve the options, have the image there, and wait for the lease."""
        self._give_back()
        self._progress.restart()
        try:
            if self._giving_back is not None:
                # told later, it would end the lease that this spawn is about to get
                await asyncio.wait([self._giving_back])
            await maybe_future(super().run_pre_spawn_hook())
            self._resolved = self._resolve()
            await self.prepare(self._resolved)
            await self._wait_for_lease(self.ask_for(self._resolved))
        except asyncio.CancelledError:
            # While waiting it leaves without a word: a user's cancel and a Hub's end look the
            # same from here. The service drops the entry after a grace time, or keeps it for the
            # next Hub. A lease that came in the same moment is given back.
            self._give_back()
            self.forget_server()
            raise
        except GPUSpawnerError as error:
            self._give_back()
            self.say(100, error.user_message)
            raise refusal(self, error) from error

    def _give_back(self) -> None:
        """Return a lease that no start took; the scheduler would hold its GPUs for a while."""
        granted, self._granted = self._granted, None
        if granted is not None and not self._taken:
            self.log.info("%s: gives back lease %s unused", self._log_name, granted.lease)
            self._giving_back = self.own(self._return(granted.lease))

    async def _return(self, lease: str) -> None:
        reason = Reason.CANCELLED.value
        await self.want_gone(lease, reason)
        await self.hint(
            self.scheduler.ended(lease, reason=reason, note="", exit_code=None, oom=False)
        )

    async def prepare(self, resolved: ResolvedProfile) -> None:
        """What the engine needs before a GPU may be taken, e.g. the image."""

    def _resolve(self) -> ResolvedProfile:
        """What this spawn asks for: the profile's word first, then the spawner's traits."""
        resolved = self.profiles.resolve(
            self.user_options, username=self.user.name, groups=self._groups
        )
        values = self._limits_now()
        silent = {name: v for name, v in values.items() if getattr(resolved, name) is None}
        if not resolved.ulimits and values["ulimits"]:
            silent["ulimits"] = values["ulimits"]
        if not self.profile_list:
            silent["gpus"] = self.limit("gpus")
        resolved = replace(resolved, **silent)
        self._apply(resolved)
        self._store_options(resolved.user_options)
        return resolved

    def _apply(self, resolved: ResolvedProfile) -> None:
        """Set the traits that the Hub and DockerSpawner read, for this spawn only."""
        wanted: dict[str, Any] = {
            "mem_limit": resolved.mem_limit or None,
            "cpu_limit": resolved.cpu_limit or None,
            "environment": {**self.environment, **resolved.environment},
        }
        if resolved.image:
            wanted["image"] = resolved.image
        if resolved.default_url:
            wanted["default_url"] = resolved.default_url
        if resolved.cmd:
            wanted["cmd"] = list(resolved.cmd)
        wanted.update(self.mounted(resolved))
        self._configured = {name: getattr(self, name) for name in wanted}
        for name, value in wanted.items():
            setattr(self, name, value)

    def _restore_traits(self) -> None:
        """Undo :meth:`_apply`: a spawner that is used again must not remember its last profile."""
        for name, value in self._configured.items():
            setattr(self, name, value)
        self._configured = {}

    def _store_options(self, options: dict[str, str]) -> None:
        """Keep what was understood: the admin page shows the profile, the next form selects it."""
        self.user_options = options
        if self.orm_spawner is not None and self.orm_spawner.user_options != options:
            self.orm_spawner.user_options = options
            self._commit()

    def _limits_now(self) -> dict[str, Any]:
        """The spawner's own limits, callables asked now."""
        values = {name: self.limit(name) for name in LIMIT_TRAITS}
        return {**values, "image": self._own_image()}

    def _own_image(self) -> str | None:
        return getattr(self, "image", None)

    def ask_for(self, resolved: ResolvedProfile) -> Ask:
        """What the scheduler is asked for."""
        return Ask(
            user=self.user.name,
            server=self.name,
            groups=self._groups,
            profile=resolved.slug,
            request=to_request(replace(resolved, image=resolved.image or self._own_image())),
            admin=bool(self.user.admin),
        )

    async def _wait_for_lease(self, ask: Ask) -> None:
        shown = None
        async with aclosing(self.scheduler.request(ask)) as events:
            async for event in events:
                if isinstance(event, Granted):
                    # kept before anything else can be cancelled: it must be given back then
                    self._granted, self._taken = event, False
                    self.own(self.hint(self.scheduler.taken(event.lease)))
                    self._tell_granted(event)
                    return
                if event.line != shown:
                    shown = event.line
                    self.say(10, shown)
        raise SchedulerUnavailable("the scheduler's answers ended without a decision")

    def _tell_granted(self, granted: Granted) -> None:
        self.say(30, f"Granted on {granted.node}: {granted.what}")
        self.log.info("%s: granted %s on %s", self._log_name, granted.what, granted.node)

    # -- progress --------------------------------------------------------------------------

    def say(self, progress: int, message: str) -> None:
        """Add a line to the progress that the pending page shows. Plain text."""
        self._progress.say(progress, message)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Position, reason, creating, starting, ready; from the beginning for each listener."""
        async with aclosing(self._progress.listen(lambda: self._spawn_pending)) as lines:
            async for line in lines:
                yield line

    # -- environment and state ---------------------------------------------------------------

    def forget_server(self) -> None:
        """Show no phantom: a cancelled start leaves no server in the Hub's database."""
        self.server = None
        if self.orm_spawner is not None:
            self.orm_spawner.server = None
            self._commit()

    def _commit(self) -> None:
        session = object_session(self.orm_spawner)
        if session is not None:
            session.commit()

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``get_state`` saved, after a restart of the Hub."""
        super().load_state(state)
        self._lease_id, self._held = str(state.get("lease") or ""), str(state.get("gpus") or "")
        self.last_end = LastEnd.from_state(state.get("last_end"))

    def get_state(self) -> dict[str, Any]:
        """What the Hub saves, and shows admins: the lease, its GPUs, how the last server ended."""
        state: dict[str, Any] = super().get_state()
        if self.lease_id:
            state["lease"] = self.lease_id
            state["gpus"] = self._held if self._granted is None else self._granted.where
        if self.last_end is not None:
            state["last_end"] = self.last_end.to_state()
        return state

    def clear_state(self) -> None:
        """Forget the server; how it ended stays."""
        super().clear_state()
        # the Hub calls it before each spawn and after each stop: also where it was cancelled
        # between the grant and the start, of which nothing else tells us
        self._give_back()
        self._lease_id = self._held = ""
        self._restore_traits()

    _lease_id = _held = ""

    @property
    def lease_id(self) -> str:
        """Id of the lease of the running server; empty = not known."""
        return self._granted.lease if self._granted is not None else self._lease_id

    def granted(self) -> Granted:
        """Take the lease for a start, which gives it back; RefusedError where there is none."""
        if self._granted is None:
            raise RefusedError(
                f"{self._log_name}: a start without a lease",
                "The server was not granted. Start it again.",
                reason="no_lease",
            )
        self._taken = True
        return self._granted


_parsed: dict[str, Profiles] = {}


def _parse(profile_list: Any) -> Profiles:
    """Parse once for each list: every spawner object carries a copy of it."""
    key = json.dumps(profile_list, sort_keys=True, default=repr)
    if key not in _parsed:
        _parsed.clear()
        _parsed[key] = parse_profiles(list(profile_list) or ONLY_TRAITS)
    return _parsed[key]
