"""Every error of this package, as one small tree.

::

    GPUSpawnerError
    ├── ConfigError             an option, profile, file or environment variable is wrong
    ├── RequestError            a user's options are not acceptable (HTTP 400)
    ├── RefusedError            the scheduler says no, with a ``Reason`` (HTTP 409, 429)
    ├── SchedulerUnavailable    the scheduler service does not answer (HTTP 503)
    ├── LedgerError             the ledger did not take a change; nothing was granted
    │   ├── LedgerFull          no space, or the database file is read-only
    │   ├── LedgerLocked        another process holds the ledger
    │   ├── LedgerFenced        a younger scheduler has taken over (its epoch is higher)
    │   ├── LedgerUnknown       the answer to a commit was lost: load again
    │   └── DoubleClaim         a device atom already has a claim
    ├── EngineError             Docker answered with an error
    │   ├── EngineUnknown       no answer, or one that proves nothing (timeout, 5xx, cut reply)
    │   ├── EngineConflict      the engine belongs to another ledger, or a name is taken
    │   ├── ImageMissing        the image is not on the engine and could not be pulled
    │   ├── MountMissing        a volume or folder can't be mounted there
    │   ├── DeviceMissing       the engine can't inject a leased device
    │   └── ServerDied          the container ended before the server answered
    └── DiscoveryError          a device source could not be read

Each error carries two texts: ``user_message`` (what happened and what the person can do, no
internals) and ``log_message`` (what failed, with the values). ``str(error)`` is the log text.
"""

from __future__ import annotations


class GPUSpawnerError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    log_message:
        What failed, with the value and what is allowed. For the log; never holds tokens.
    user_message:
        What the person in the browser reads. Defaults to the log text, which is right only
        where the person is the admin (configuration).
    """

    def __init__(self, log_message: str, user_message: str | None = None) -> None:
        super().__init__(log_message)
        self.log_message = log_message
        self.user_message = user_message if user_message is not None else log_message


class ConfigError(GPUSpawnerError):
    """An option, a profile, a file or an environment variable is wrong."""


class RequestError(GPUSpawnerError):
    """The options of a spawn request are not acceptable."""


class NotThereError(RequestError):
    """What a request is about does not exist, or is not the asker's to know."""


class RefusedError(GPUSpawnerError):
    """The scheduler refuses the request; waiting would not help.

    ``reason`` is the stable text of a :class:`~jupyterhub_gpuspawner.scheduler.models.Reason`.
    ``retry_after``: seconds after which the same request may be made again; None = asking again
    does not help.
    """

    def __init__(
        self,
        log_message: str,
        user_message: str | None = None,
        *,
        reason: str,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(log_message, user_message)
        self.reason = reason
        self.retry_after = retry_after


class SchedulerUnavailable(GPUSpawnerError):
    """The scheduler service does not answer; nothing is known about its decision."""


class LedgerError(GPUSpawnerError):
    """The ledger did not take a change. What was asked for has not happened."""


class LedgerFull(LedgerError):
    """The ledger can't be written: no space left, or read-only."""


class LedgerLocked(LedgerError):
    """Another process holds the ledger."""


class LedgerFenced(LedgerError):
    """A scheduler with a higher epoch writes this ledger; this one must end."""


class LedgerUnknown(LedgerError):
    """The answer to a commit was lost. It may have happened: load the ledger again."""


class DoubleClaim(LedgerError):
    """The ledger refused a second claim on an atom, or a server's second live lease.

    The grant did not happen.
    """


class EngineError(GPUSpawnerError):
    """Docker answered with an error that says the call had no effect."""


class EngineUnknown(EngineError):
    """Docker gave no answer, or one that proves nothing: the effect is unknown."""


class EngineConflict(EngineError):
    """The engine, or a name on it, belongs to somebody else."""


class ImageMissing(EngineError):
    """The image is not on the engine and could not be pulled."""


class MountMissing(EngineError):
    """A volume or a folder of the server can't be mounted on the machine."""


class DeviceMissing(EngineError):
    """The engine can't inject a device of the lease."""


class ServerDied(EngineError):
    """The container ended before its server answered."""


class DiscoveryError(GPUSpawnerError):
    """A device source could not be read."""
