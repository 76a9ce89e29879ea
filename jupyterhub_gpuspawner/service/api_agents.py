"""Where the agents of the nodes report. No token: each message is signed."""

from __future__ import annotations

from typing import Any

from ..discovery.agent_report import HEADER
from ..errors import RefusedError, RequestError
from .agents import log
from .web import JSONHandler


class ReportHandler(JSONHandler):
    """``POST api/agents/report``: what a node's agent has seen."""

    def post(self) -> None:
        agents = self.desk.agents
        if agents is None:
            # for ever where there is no Swarm, so that nobody learns anything from it
            self.fail(403, "forbidden", "No reports of agents are taken here, or not yet.")
            return
        try:
            agents.hear(self.request.body, self.request.headers.get(HEADER, ""))
        except RefusedError as error:
            self.fail(403, "forbidden", error.user_message)
        except RequestError as error:
            log.warning("%s", error)
            self.fail(400, "bad_request", error.user_message)
        else:
            self.finish({})


def routes(prefix: str, desk: Any) -> list[tuple[str, type[JSONHandler], dict[str, Any]]]:
    """The routes under ``prefix`` (``/services/gpus/``)."""
    return [(f"{prefix}api/agents/report", ReportHandler, {"desk": desk})]
