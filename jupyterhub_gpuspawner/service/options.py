"""The options of the scheduler service: ``c.GPUScheduler.…``. The help texts are the manual."""

from __future__ import annotations

import difflib
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitlets import (
    Bool,
    Dict,
    Enum,
    Int,
    List,
    TraitError,
    Unicode,
    default,
    validate,
)
from traitlets.config import Config

from ..discovery.boards import MODELS as BOARDS
from ..discovery.simulated import simulated_devices
from ..discovery.static import parse_devices
from ..errors import ConfigError
from ..i18n import languages
from ..kinds import DatabaseURL, EngineURL, FilePath, odd_number, one_line
from ..scheduler.models import Settings
from .options_policy import PolicyOptions
from .traits import Seconds, parse_bind

DISCOVERY = ("auto", "nvml", "simulated", "static", "none", "swarm")
#: where the service listens when neither the Hub nor the admin says so
DEFAULT_PORT = 8750
#: the service's addresses begin so, behind the Hub's base_url
PREFIX = "/services/gpus/"
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?", re.ASCII)


class GPUScheduler(PolicyOptions):
    """Who may have which GPUs, and where the service keeps and finds things."""

    state_dir = FilePath(
        help="""Directory of the service's own files.

        Holds the ledger, the service token and the lock. Made with mode 0700 if it is not
        there. Relative paths count from the directory that the Hub was started in.
        Default: ``gpus-state``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @default("state_dir")
    def _default_state_dir(self) -> str:
        return str(Path.cwd() / "gpus-state")

    ledger_url = DatabaseURL(
        help="""Database of all leases and waiting requests.

        A SQLAlchemy URL: ``sqlite:////folder/ledger.sqlite`` (four slashes: an absolute
        path) or ``postgresql+psycopg://user:password@host/name`` (with the extra
        ``postgresql``). Not the Hub's own database.
        Empty (the default): ``ledger.sqlite`` in ``state_dir``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    token_file = FilePath(
        help="""File with the token that spawner and service share.

        Made with mode 0600 if it is not there; refused if others can read it. The
        environment variable ``GPUS_SERVICE_TOKEN`` replaces it. Empty (the default):
        ``service-token`` in ``state_dir``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    url = Unicode(
        help="""Address that the service listens on.

        ``http://127.0.0.1:8750``; the path does not count. Empty (the default): what the Hub
        says in ``JUPYTERHUB_SERVICE_URL``, else ``http://127.0.0.1:8750``. Keep it on
        loopback, or behind TLS: the service token travels over it.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    docker_host = EngineURL(
        help="""Docker engine on which servers run.

        ``unix:///var/run/docker.sock`` or ``tcp://host:2376``. Empty (the default):
        ``DOCKER_HOST``, else the local socket.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    metrics_show_users = Bool(
        False,
        help="""Whether the metrics say whose server a GPU is in.

        True fills the labels ``user`` and ``server`` of ``gpus_lease_info``, so that a chart of
        GPU use can name its user. Prometheus keeps the names as long as it keeps numbers, and
        shows them to whoever may ask it. False (the default): no metric names a person.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    language = Enum(
        ["", *languages()],
        "",
        help="""The language of the pages, such as ``"zh_CN"``.

        Empty (the default): as each user's browser asks, English where it asks for none that is
        there. ``"en"``: English for everybody. Profiles, and what an admin writes, stay as they
        are written.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    claim_engine = Bool(
        True,
        help="""Whether the engine must belong to this ledger.

        The first scheduler that uses an engine makes the volume ``gpus-owner`` there. A
        scheduler that finds another ledger's volume grants nothing, because two schedulers
        would give out the same GPUs. False is allowed only with ``discovery`` ``simulated`` or
        ``none``, where nothing real can be given out twice: it lets a trial run on the engine
        of another installation.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    engine_timeout = Seconds(
        30.0,
        help="""Seconds Docker may be silent during a call of the service.

        After that nothing is known about the call's effect: nothing is given back, and the
        service looks again. The spawner has an option of the same name for its own calls.
        Default: 30.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    cdi_dir = FilePath(
        help="""Directory from which the engine reads its CDI specs.

        As this machine sees it. Simulated GPUs are defined there, if the engine uses CDI; if
        it can't be written, a simulated GPU gets in by a bind mount instead. Empty (the
        default): what the engine says, where it is on this machine.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    node_name = Unicode(
        help="""Name of this machine in lists, leases and device ids.

        1 to 64 letters, digits, ``-``, ``_``, ``.``. Default: the host name.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @default("node_name")
    def _default_node_name(self) -> str:
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64].strip("-_.")
        return name or "node"

    discovery = Unicode(
        "auto",
        help="""Where the list of GPUs comes from.

        ``auto``: NVIDIA's driver library if it finds GPUs, else the simulated ones if
        ``simulate`` is above 0, else none. ``nvml``: the driver library or nothing.
        ``simulated``: ``simulate`` GPUs that don't exist. ``static``: ``static_devices``.
        ``none``: no GPUs; only memory and CPU are managed. ``swarm``: all nodes of the Docker
        Swarm whose manager is ``docker_host``, with the GPUs in their
        ``node-generic-resources``; for servers of ``GPUSwarmSpawner``, where ``setup(c)`` sets
        it.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    simulate = Int(
        0,
        help="""Number of simulated GPUs, 0 to 256.

        They are shown as SIMULATED everywhere, and appear in a container as a marker file
        ``/run/gpus/<id>``. Used with ``discovery`` ``simulated``, and with ``auto`` on a
        machine without NVIDIA GPUs. 0 (the default) = none.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    simulate_board = Unicode(
        help="""Machine like which the simulated GPUs are connected.

        ``dgx-1v``, ``dgx-a100``, ``hgx-h100`` (8 GPUs) or ``dgx-2`` (16 GPUs behind NVSwitches);
        every so many of them are one machine's. A server with several GPUs then gets those that
        are connected best, as it does on real ones. Empty (the default) = no connection is known.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    static_devices = List(
        Dict(),
        help="""GPUs by hand, for ``discovery`` ``static``.

        A list of dicts with ``id`` (the UUID that ``nvidia-smi -L`` prints), ``model``,
        ``memory`` (bytes or ``"80G"``), ``index``, ``mode``, ``atoms``, ``parent``, ``mps``,
        ``mps_limit``: see "Share a GPU" in the how-to on profiles. Example:
        ``[{"id": "GPU-5f1b…", "model": "NVIDIA A100", "memory": "80G"}]``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    reconcile_interval = Seconds(
        30.0,
        help="""Seconds between two comparisons of ledger and engine.

        Docker's events lead to one at once; this is for what events miss. Default: 30.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    stop_grace = Seconds(
        10.0,
        help="""Seconds a container gets to end before it is killed.

        For stops that the service does, not for those of the Hub. Default: 10.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    hung_stop = Seconds(
        180.0,
        help="""Seconds of failing tries after which a stop counts as hung.

        A container that can't be killed (a process that hangs in the driver) keeps its GPUs:
        they are out of service until the machine's next boot. Default: 180.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    created_grace = Seconds(
        120.0,
        help="""Seconds before a container that never started is removed.

        Only containers of ours without a live lease. Default: 120.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    exited_grace = Seconds(
        30.0,
        help="""Seconds the Hub has to read an ended container's last words.

        After that the service removes it and gives the GPUs back. Default: 30.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    network_grace = Seconds(
        60.0,
        help="""Seconds a user's network outlives the user's last server.

        Counted from the comparison that finds it unused, so that who starts again soon finds it
        there. Networks that a crash left go the same way. Default: 60.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        section = (kwargs.get("config") or Config()).get("GPUScheduler", {})
        known = sorted(self.class_trait_names(config=True))
        for name in section:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
                raise ConfigError(f"GPUScheduler.{name}: there is no such option{hint}")
        try:
            super().__init__(**kwargs)
            # a default or a value that is never asked for would otherwise fail later
            for name in known:
                getattr(self, name)
        except TraitError as error:
            raise ConfigError(f"GPUScheduler: {one_line(error)}") from None
        for name in section:
            odd = odd_number(self.class_traits()[name], section[name])
            if odd:
                raise ConfigError(f"GPUScheduler.{name}: {odd}")
        self._check_together()

    @validate("discovery")
    def _validate_discovery(self, proposal: Any) -> str:
        if proposal.value not in DISCOVERY:
            raise TraitError(f"discovery is {proposal.value!r}; allowed: {', '.join(DISCOVERY)}")
        return str(proposal.value)

    @validate("simulate_board")
    def _validate_board(self, proposal: Any) -> str:
        if proposal.value and proposal.value not in BOARDS:
            raise TraitError(
                f"simulate_board is {proposal.value!r}; allowed: {', '.join(BOARDS)}, or empty"
            )
        return str(proposal.value)

    @validate("node_name")
    def _validate_node_name(self, proposal: Any) -> str:
        if not _NODE.fullmatch(proposal.value):
            raise TraitError(f"node_name is {proposal.value!r}; want 1 to 64 of A-Za-z0-9_.-")
        return str(proposal.value)

    @validate("url")
    def _validate_url(self, proposal: Any) -> str:
        if proposal.value:
            parse_bind(proposal.value)
        return str(proposal.value)

    def settings(self) -> Settings:
        """The numbers that the scheduler itself needs."""
        settings = super().settings()
        if self.discovery == "swarm" and settings.cpu_overcommit is None:
            # Swarm itself refuses more: a limit there is a reservation too
            settings = replace(settings, cpu_overcommit=1.0)
        return settings

    def _check_together(self) -> None:
        """Options that only make sense together, and those whose reader is another module."""
        self.where()
        if not self.claim_engine and self.discovery not in ("simulated", "none"):
            raise ConfigError(
                f"GPUScheduler.claim_engine is False with discovery {self.discovery!r}: two "
                "schedulers would give out the same GPUs; allowed with 'simulated' and 'none'"
            )
        if self.agent_key_file and self.discovery != "swarm":
            raise ConfigError(
                f"GPUScheduler.agent_key_file with discovery {self.discovery!r}: only a Swarm has "
                "agents; want 'swarm', or no key"
            )
        if self.simulate or self.discovery == "simulated":
            try:
                simulated_devices(self.simulate, self.node_name)
            except ConfigError as error:
                raise ConfigError(f"GPUScheduler.simulate: {one_line(error)}") from None
        if self.discovery == "static" or self.static_devices:
            try:
                parse_devices(self.static_devices, self.node_name)
            except ConfigError as error:
                raise ConfigError(f"GPUScheduler.static_devices: {one_line(error)}") from None

    @property
    def state_path(self) -> Path:
        """``state_dir`` as an absolute path."""
        return Path(self.state_dir).absolute()

    @property
    def ledger(self) -> str:
        """The ledger's URL with its default filled in."""
        return self.ledger_url or f"sqlite:///{self.state_path / 'ledger.sqlite'}"

    @property
    def token_path(self) -> Path:
        """The token's file with its default filled in."""
        return (
            Path(self.token_file).absolute()
            if self.token_file
            else (self.state_path / "service-token")
        )

    def bind(self) -> tuple[str, int]:
        """Address and port to listen on."""
        url = self.url or os.environ.get("JUPYTERHUB_SERVICE_URL", "")
        return parse_bind(url) if url else ("127.0.0.1", DEFAULT_PORT)
