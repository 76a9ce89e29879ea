"""How the last server ended, in words, kept in the Hub's database until the next end."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from .units import format_memory

#: exit code of what was killed with SIGKILL, as the kernel does for memory
KILLED = 137


@dataclass(frozen=True, kw_only=True, slots=True)
class LastEnd:
    """The end of a server that its user did not ask for."""

    #: one sentence for the user
    text: str
    #: what it printed last; may be empty
    log_tail: str = ""

    def to_state(self) -> dict[str, str]:
        """The JSON form."""
        return {"text": self.text, "log_tail": self.log_tail}

    @classmethod
    def from_state(cls, data: Any) -> LastEnd | None:
        """From the JSON form; None for anything else (an older version's state)."""
        if not isinstance(data, dict) or not isinstance(data.get("text"), str):
            return None
        return cls(text=data["text"], log_tail=str(data.get("log_tail") or ""))


def describe(*, exit_code: int | None, oom: bool, memory: int | None, away: bool = False) -> str:
    """``stopped: out of memory, limit 8 GiB`` and its kind.

    ``memory``: the limit in bytes, None = unknown or none. ``oom`` is Docker's mark that the
    kernel killed some process of the container, perhaps long before it ended. ``away``: Docker
    was down when it ended.
    """
    limit = f", limit {format_memory(memory)}" if memory else ""
    if oom and exit_code in (None, KILLED):
        return f"stopped: out of memory{limit}"
    if oom:
        return f"stopped (exit code {exit_code}); before that a process ran out of memory{limit}"
    if exit_code is None:
        return "stopped: the container is gone; somebody removed it"
    if away:
        return f"stopped when Docker was stopped or restarted (exit code {exit_code})"
    if exit_code == 0:
        return "stopped by itself (exit code 0)"
    return f"stopped unexpectedly (exit code {exit_code})"


def with_notice(form: str, last: LastEnd | None) -> str:
    """``form`` (HTML) with the end of the last server above it."""
    if last is None:
        return form
    details = ""
    if last.log_tail:
        details = (
            "<details><summary>Its last lines</summary>"
            f'<pre class="small mb-0">{escape(last.log_tail)}</pre></details>'
        )
    return (
        '<div class="alert alert-warning" role="status">'
        f"Your last server {escape(last.text)}.{details}</div>{form}"
    )
