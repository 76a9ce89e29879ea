"""What users read when Docker fails, and what is to come of each fault of each call.

The table says it for every phase of a server's life and every call that the spawner makes in it.
A call that is not in it fails a test, so that new code has to say what its faults lead to.
"""

from __future__ import annotations

from tests.testbed.faultsocket import FAULTS, GONE

#: nothing to read: the server runs, or stopped
FINE = ""
SILENT = "Docker does not answer at the moment. Please try again in a minute."
REFUSED = "Docker refused to do what your server needs. Please tell your administrator."
LOST = (
    "Docker does not find what your server needs, or lost it. Start it again; if it fails again, "
    "please tell an administrator."
)
NO_NETWORK = "No network can be made for your server. Please tell an administrator."
NOT_FETCHED = (
    "The image 127.0.0.1:1/nobody/has-this:1 can't be fetched. Please tell your administrator."
)
DIED = "Your last server stopped unexpectedly (exit code 137)."
REMOVED = "Your last server stopped: the container is gone; somebody removed it."

#: fault -> words, for a call that the start can't do without
NEEDED = {
    "refused": SILENT,
    "404": SILENT,
    "409": REFUSED,
    "500": SILENT,
    "503": SILENT,
    "slow": FINE,
    "cut": SILENT,
    "broken": SILENT,
    "silent before": SILENT,
    "silent after": SILENT,
    GONE: LOST,
}
#: for a call that it can do without
SPARE = dict.fromkeys([*FAULTS, GONE], FINE)
#: "refused" lasts, so it meets the next call too; whether there is one before the server answers
#: is a matter of moments
EITHER = (FINE, SILENT)

Words = str | tuple[str, ...]

#: phase -> call -> fault -> words. Phases are those of ``cases.py``
TABLE: dict[str, dict[str, dict[str, Words]]] = {
    "start": {
        # a 4xx to this one is the SDK's "Error while fetching server API version"
        "GET /version": {**NEEDED, "409": SILENT},
        "GET /images/{name}/json": {**NEEDED},
        "GET /volumes": {**NEEDED},
        "POST /volumes/create": {**NEEDED},
        "GET /networks": {**NEEDED},
        "POST /networks/create": {**NEEDED, "409": NO_NETWORK},
        # the name was free after all: the second try succeeds
        "POST /containers/create": {**NEEDED, "409": FINE},
        # it has no body, so nothing of its answer can be lost but all of it
        "POST /containers/{id}/start": {**NEEDED, "cut": FINE, "broken": FINE},
        "GET /containers/{id}/json": {**NEEDED},
        # the watch over all servers: polls do its work until it is back
        "GET /_ping": {**SPARE, "refused": EITHER},
        "GET /events": {**SPARE, "refused": EITHER},
        "GET /containers/json?filters": {**SPARE, "refused": EITHER},
    },
    # the Hub says "stopped" whatever comes of it; the scheduler goes on with it
    "stop": {
        "POST /containers/{id}/stop": {**SPARE},
        "DELETE /containers/{id}": {**SPARE},
    },
    "poll": {"GET /containers/{id}/json": {**SPARE, GONE: REMOVED}},
    "death": {
        "GET /containers/{id}/json": {**dict.fromkeys(SPARE, DIED), GONE: REMOVED},
        "GET /containers/{id}/logs": {**dict.fromkeys(SPARE, DIED), GONE: REMOVED},
        "DELETE /containers/{id}": {**dict.fromkeys(SPARE, DIED)},
    },
    "pull": {
        "GET /version": {**NEEDED, "409": SILENT, "slow": NOT_FETCHED},
        "GET /images/{name}/json": {**NEEDED, "slow": NOT_FETCHED},
        # what the registry says comes with any status, so it can't be told from Docker's own
        "POST /images/create": {
            **NEEDED,
            **dict.fromkeys(("404", "409", "500", "503", "slow", "broken"), NOT_FETCHED),
        },
    },
}


def faults_of(call: str) -> tuple[str, ...]:
    """The faults that can happen to a call."""
    return (*FAULTS, GONE) if "{id}" in call else FAULTS


def cases() -> list[tuple[str, str, str]]:
    """(phase, call, fault) of the whole table."""
    return [
        (phase, call, fault)
        for phase, calls in TABLE.items()
        for call in calls
        for fault in faults_of(call)
    ]
