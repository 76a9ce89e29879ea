"""The API keeps what its OpenAPI document says, whatever is sent: schemathesis at a real Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.quickstart.trial import wait_for

from .conftest import long_run

#: for each operation and way; bounded, because many come to nothing
EXAMPLES = 200 if long_run() else 8
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def document(hub: Any) -> dict[str, Any]:
    """The document of the service that runs."""
    address = f"{hub.base}/services/gpus/api/openapi.json"
    # the API for people's programs is the last part of the service to be there
    wait_for("the API", 60, lambda: requests.get(address, timeout=30).status_code == 200)
    found: dict[str, Any] = requests.get(address, timeout=30).json()
    return found


@pytest.fixture(scope="module")
def session(hub: Any) -> Iterator[requests.Session]:
    """Somebody who may do everything."""
    with requests.Session() as made:
        made.trust_env = False
        secret = (hub.state / "gpus" / "service-token").read_text().strip()
        made.headers["Authorization"] = f"token {secret}"
        yield made


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_keeps_what_its_document_says(
    hub: Any, document: dict[str, Any], session: requests.Session, mode: GenerationMode
) -> None:
    base = hub.base + document["servers"][0]["url"]
    seen: dict[str, set[int]] = {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not _can_be_wrong(operation):
            continue
        seen[operation.label] = set()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=not long_run(),
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            answer = case.call(base_url=base, session=session, timeout=30)
            seen[case.operation.label].add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        send()
    assert len(seen) >= 15, seen
    every = set().union(*seen.values())
    if mode is GenerationMode.POSITIVE:
        assert all(
            200 in codes
            for label, codes in seen.items()
            if label.startswith("GET") and "{" not in label
        ), seen
    assert {400, 404} <= every, seen


def _can_be_wrong(operation: Any) -> bool:
    """Whether anything but the address varies, so that it can be sent in a wrong way."""
    return bool(len(operation.query) or len(operation.body))
