"""Who may do what at the service: every route, every method, every kind of caller."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from deploy.quickstart.trial import ROOT, wait_for
from jupyterhub_gpuspawner.engine import labels

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WHO = (
    "anonymous",
    "user",
    "other user",
    "group admin",
    "admin",
    "token with scope",
    "token without scope",
    "token for metrics",
    "admin's token without scope",
    "server's token",
    "service token",
    "token to see",
    "token to act",
)
LEASES = "api/internal/leases/ID/(taken|bind|running|activity|extend|stopping|ended)"
#: addresses that fit the patterns of the routes
EXAMPLES = {
    "": "",
    "(cancel|extend|keep|stop)/ID": "keep/nobodys",
    "events/gpus": "events/gpus",
    "admin": "admin",
    "events/admin": "events/admin",
    "events/servers": "events/servers",
    "events/form": "events/form",
    "events/waiting": "events/waiting",
    "hello": "hello",
    "words": "words",
    "metrics": "metrics",
    "oauth_callback": "oauth_callback",
    "static/([a-z]+\\.(?:css|js))": "static/gpus.css",
    "api/openapi\\.json": "api/openapi.json",
    "api/devices": "api/devices",
    "api/nodes": "api/nodes",
    "api/leases": "api/leases",
    "api/queue": "api/queue",
    "api/journal": "api/journal",
    "api/explain/ID": "api/explain/nobodys",
    "api/queue/ID/cancel": "api/queue/nobodys/cancel",
    "api/devices/ID/admin": "api/devices/nobodys/admin",
    "api/leases/ID/evict": "api/leases/nobodys/evict",
    "api/leases/ID/keep": "api/leases/nobodys/keep",
    "api/nodes/ID/admin": "api/nodes/nobodys/admin",
    "api/nodes/ID/lost": "api/nodes/nobodys/lost",
    "api/bookings": "api/bookings",
    "api/bookings/ID/cancel": "api/bookings/nobodys/cancel",
    "api/groups": "api/groups",
    "api/queue/ID/priority": "api/queue/nobodys/priority",
    "api/usage": "api/usage",
    "api/usage\\.csv": "api/usage.csv",
    "api/audit": "api/audit",
    "api/health": "api/health",
    "api/agents/report": "api/agents/report",
    "api/internal/summary": "api/internal/summary",
    "api/internal/warned": "api/internal/warned",
    "api/internal/hub": "api/internal/hub",
    "api/internal/requests": "api/internal/requests",
    "api/internal/requests/ID/cancel": "api/internal/requests/nobodys/cancel",
    "api/internal/bookings": "api/internal/bookings",
    "api/internal/bookings/ID/cancel": "api/internal/bookings/nobodys/cancel",
    LEASES: "api/internal/leases/nobodys/bind",
}
#: route -> method -> what each caller gets; "*": all others. Methods that are not here are 405,
#: or 403 where the token is asked for first
LOGIN, OK, NO = 302, 200, 403
#: who may come to the service at all; a token of a server may not
MEMBER = {
    "*": OK,
    "anonymous": NO,
    "token without scope": NO,
    "token for metrics": NO,
    "admin's token without scope": NO,
    "server's token": NO,
}
#: a session changes nothing without the XSRF token, whoever's it is
OF_AN_ADMIN = {"*": NO, "service token": 400, "token to act": 400}
#: who may see what everybody does
OF_A_READER = {
    "*": NO,
    "admin": OK,
    "service token": OK,
    "token to see": OK,
    "token to act": OK,
}
#: who may hear a page
EVENTS = {
    "*": OK,
    **dict.fromkeys(
        (
            *("anonymous", "service token", "token without scope", "token for metrics"),
            *("admin's token without scope", "server's token", "token to see", "token to act"),
        ),
        NO,
    ),
}
EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    "api/openapi\\.json": {"GET": {"*": OK}},
    **{f"api/{part}": {"GET": MEMBER} for part in ("devices", "nodes", "leases", "queue")},
    "api/journal": {"GET": OF_A_READER},
    "api/audit": {"GET": OF_A_READER},
    **{f"api/{part}": {"GET": MEMBER} for part in ("groups", "usage", "usage\\.csv")},
    # the empty body says nothing of what is booked
    "api/bookings": {"GET": MEMBER, "POST": OF_AN_ADMIN},
    # 404: there is no such booking
    "api/bookings/ID/cancel": {"POST": {**OF_AN_ADMIN, "service token": 404, "token to act": 404}},
    "api/queue/ID/priority": {"POST": OF_AN_ADMIN},
    # 404: there is no such request or lease of theirs
    "api/explain/ID": {"GET": {**MEMBER, "*": 404}},
    # 404: there is no such request
    "api/queue/ID/cancel": {
        "POST": {
            "*": NO,
            "token with scope": 404,
            "service token": 404,
            "token to see": 404,
            "token to act": 404,
        }
    },
    # 400: the empty body does not say what is wanted
    "api/devices/ID/admin": {"POST": OF_AN_ADMIN},
    "api/nodes/ID/admin": {"POST": OF_AN_ADMIN},
    # 404: there is no such machine
    "api/nodes/ID/lost": {"POST": {"*": NO, "service token": 404, "token to act": 404}},
    # the buttons of the page, which lead back to it; a session needs its XSRF token
    "(cancel|extend|keep|stop)/ID": {"POST": {"*": NO, "token with scope": 303}},
    # the page's stream: it only reads, and has no end
    "events/gpus": {"GET": EVENTS},
    **{f"events/{page}": {"GET": {"*": NO, "admin": OK}} for page in ("admin", "servers")},
    "admin": {"GET": {"*": NO, "admin": OK, "anonymous": LOGIN, "service token": LOGIN}},
    "events/form": {"GET": EVENTS},
    "events/waiting": {"GET": EVENTS},
    # a page that is empty: who comes is logged in afterwards
    "hello": {
        "GET": {**EVENTS, "*": 204, "anonymous": LOGIN, "service token": LOGIN},
    },
    # translations
    "words": {"GET": {"*": OK}},
    # 404: there is no such lease of theirs
    "api/leases/ID/keep": {
        "POST": {
            "*": NO,
            "token with scope": 404,
            "service token": 404,
            "token to see": 404,
            "token to act": 404,
        }
    },
    # 404: there is no such lease
    "api/leases/ID/evict": {"POST": {"*": NO, "service token": 404, "token to act": 404}},
    "": {
        "GET": {
            "*": OK,
            "anonymous": LOGIN,
            "service token": LOGIN,
            "token without scope": NO,
            "token for metrics": NO,
            "admin's token without scope": NO,
            "server's token": NO,
            "token to see": NO,
            "token to act": NO,
        }
    },
    "metrics": {
        "GET": {
            "*": NO,
            "admin": OK,
            "service token": OK,
            "token for metrics": OK,
        }
    },
    # without a code from the Hub it is nobody's
    "oauth_callback": {"GET": {"*": 400}},
    "static/([a-z]+\\.(?:css|js))": {"GET": {"*": OK}, "HEAD": {"*": OK}},
    "api/health": {"GET": {"*": OK}},
    # no token counts: a report has to be signed with the agents' key
    "api/agents/report": {"POST": {"*": NO}},
    "api/internal/summary": {"GET": {"*": NO, "service token": OK}},
    "api/internal/warned": {"GET": {"*": NO, "service token": OK}},
    # 400: the empty body names no Hub
    "api/internal/hub": {"POST": {"*": NO, "service token": 400}},
    # 400: the empty body names no user
    "api/internal/requests": {"POST": {"*": NO, "service token": 400}},
    "api/internal/requests/ID/cancel": {"POST": {"*": NO, "service token": OK}},
    "api/internal/bookings": {
        "GET": {"*": NO, "service token": OK},
        # the empty body says nothing of what is booked
        "POST": {"*": NO, "service token": 400},
    },
    "api/internal/bookings/ID/cancel": {"POST": {"*": NO, "service token": OK}},
    LEASES: {"POST": {"*": NO, "service token": 400}},
}

ROUTES = """
import json, sys
from jupyterhub_gpuspawner.service.app import add_routes, web_application
from jupyterhub_gpuspawner.service.desk import Desk
web = web_application()
add_routes(web, "/P/", Desk("t" * 32))
found = []
def walk(router):
    for rule in router.rules:
        inner = getattr(rule.target, "rules", None)
        if inner is not None:
            walk(rule.target)
        elif hasattr(rule.matcher, "regex"):
            found.append(rule.matcher.regex.pattern)
walk(web.default_router)
print(json.dumps(found))
"""


def routes() -> list[str]:
    """The patterns of all routes that the service really has, without its prefix."""
    # in a process of its own: with the environment of a service, as it is when it runs
    ended = subprocess.run(
        [sys.executable, "-c", ROUTES],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = []
    for pattern in json.loads(ended.stdout):
        plain = pattern.removesuffix("$").replace("\\/", "/")
        if plain.startswith("/P/"):
            plain = plain.replace(_ID, "ID").replace(_API_ID, "ID")
            found.append(plain.removeprefix("/P/"))
    return found


_ID = r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})"
_API_ID = r"([A-Za-z0-9][A-Za-z0-9_.:-]{0,127})"


class Caller:
    """A browser session, or a token in a header."""

    def __init__(self, base: str, person: Any = None, token: str = "") -> None:
        self._base = base
        self._web = person._web if person is not None else requests.Session()
        self._web.trust_env = False
        self._headers = {"Authorization": f"token {token}"} if token else {}

    def call(self, method: str, path: str) -> requests.Response:
        url = f"{self._base}/services/gpus/{path}"
        answer = self._web.request(
            method, url, headers=self._headers, allow_redirects=False, timeout=60, stream=True
        )
        # an answer without content has no type
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            # it has no end
            answer._content = next(answer.iter_content(16))
            answer.close()
        else:
            assert answer.content is not None
        return answer


@pytest.fixture(scope="module")
def callers(hub, docker_client) -> Iterator[dict[str, Caller]]:
    people = {
        "user": hub.person("user-1"),
        "other user": hub.person("user-2"),
        "group admin": hub.person("lead"),
        "admin": hub.person("admin", admin=True),
    }
    for person in people.values():
        person.page("/services/gpus/")  # logs in at the service, by OAuth
    owner, admin = people["user"], people["admin"]
    owner.ask({"profile": "gpu"})
    owner.wait(limit=90)
    chosen = [f"{labels.USER}={owner.name}"]
    (container,) = docker_client.containers.list(filters={"label": chosen})
    env = dict(text.partition("=")[::2] for text in container.attrs["Config"]["Env"])

    def token(person: Any, *scopes: str) -> str:
        user = quote(person.name)
        answer = person.api("POST", f"/users/{user}/tokens", json={"scopes": list(scopes)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    base = hub.base
    callers = {name: Caller(base, person) for name, person in people.items()}
    callers["anonymous"] = Caller(base)
    callers["token with scope"] = Caller(
        base, token=token(owner, "access:services!service=gpus", "read:users:name!user")
    )
    callers["token without scope"] = Caller(base, token=token(owner, "read:users:name!user"))
    callers["token for metrics"] = Caller(base, token=token(admin, "read:metrics"))
    callers["admin's token without scope"] = Caller(
        base, token=token(admin, "read:users:name!user")
    )
    callers["server's token"] = Caller(base, token=env["JUPYTERHUB_API_TOKEN"])
    watcher, actor = hub.person("watcher"), hub.person("operator")
    callers["token to see"] = Caller(base, token=token(watcher, "custom:gpus:read"))
    callers["token to act"] = Caller(base, token=token(actor, "custom:gpus:admin"))
    secret = (hub.state / "gpus" / "service-token").read_text().strip()
    callers["service token"] = Caller(base, token=secret)
    assert set(callers) == set(WHO)
    yield callers
    owner.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())


def test_every_route_has_its_line_in_the_matrix():
    assert sorted(routes()) == sorted(EXPECTED), "a new route: say who may call it"
    assert set(EXPECTED) == set(EXAMPLES)


@pytest.mark.parametrize("route", EXPECTED)
@pytest.mark.parametrize("who", WHO)
def test_each_caller_gets_what_the_matrix_says(callers, route, who):
    wrong = []
    for method in METHODS:
        allowed = EXPECTED[route].get(method)
        if allowed is None:
            # the internal API does not even say which methods it has
            internal = route.startswith("api/internal") and who != "service token"
            wanted = {NO} if internal else {405}
        else:
            wanted = {allowed.get(who, allowed["*"])}
        answer = callers[who].call(method, EXAMPLES[route])
        if answer.status_code not in wanted:
            wrong.append((method, answer.status_code, wanted, answer.text[:200]))
        wrong += [(method, problem) for problem in unprotected(answer)]
    assert not wrong, (who, route, wrong)


def unprotected(answer: requests.Response) -> list[str]:
    """What is missing among the headers that keep a browser from doing harm."""
    got = answer.headers
    policy = got.get("Content-Security-Policy", "")
    problems = []
    for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
        if part not in policy:
            problems.append(f"Content-Security-Policy without {part}: {policy!r}")
    if "unsafe" in policy:
        problems.append(f"an unsafe policy: {policy}")
    if got.get("X-Content-Type-Options") != "nosniff":
        problems.append("no nosniff")
    if got.get("Referrer-Policy") != "same-origin":
        problems.append(f"Referrer-Policy {got.get('Referrer-Policy')}")
    public = answer.url.endswith(".css") and answer.status_code == 200
    if not public and got.get("Cache-Control") != "no-store":
        problems.append(f"Cache-Control {got.get('Cache-Control')}")
    if "tornado" in got.get("Server", "").lower():
        problems.append("says which server it is")
    return problems


@pytest.mark.parametrize("path", ["nothing", "api/nothing", "api/internal/", "static/../app.py"])
def test_an_address_that_does_not_exist_tells_nothing(callers, path):
    for who in ("anonymous", "user", "admin"):
        answer = callers[who].call("GET", path)
        assert answer.status_code == 404
        assert not unprotected(answer)
        assert "Traceback" not in answer.text


def test_names_of_others_are_for_admins(callers):
    pages = {who: callers[who].call("GET", "").text for who in WHO}
    assert [who for who in WHO if "user-1" in pages[who]] == ["user", "admin", "token with scope"]


def test_the_nonce_is_another_one_each_time(callers):
    found = {
        re.search(
            r"nonce-([^']+)'", callers["user"].call("GET", "").headers["Content-Security-Policy"]
        )[1]
        for _ in range(5)
    }
    assert len(found) == 5
    assert all(len(nonce) >= 20 for nonce in found)


STATE_CHANGING = [
    ("POST", "/hub/api/users/user-2/server"),
    ("DELETE", "/hub/api/users/user-2/server"),
    ("POST", "/hub/api/users/user-2/servers/x"),
    ("POST", "/hub/api/users/user-2/tokens"),
    ("POST", "/hub/spawn/user-2"),
    ("POST", "/hub/login"),
]


@pytest.mark.parametrize(("method", "path"), STATE_CHANGING)
def test_a_call_of_a_browser_without_the_xsrf_token_is_403(hub, callers, method, path):
    session = callers["other user"]._web
    for body in (None, {"_xsrf": "wrong", "profile": "plain"}):
        answer = session.request(
            method,
            hub.base + path,
            json=body,
            headers={"Referer": "http://elsewhere.example/"},
            allow_redirects=False,
            timeout=60,
        )
        assert answer.status_code == 403, (answer.status_code, answer.text[:300])
    servers = hub.person("user-2").api("GET", "/users/user-2").json()["servers"]
    assert not any(server["ready"] or server["pending"] for server in servers.values())


OTHERS = [
    ("GET", "/users/user-1"),
    ("POST", "/users/user-1/server"),
    ("DELETE", "/users/user-1/server"),
    ("POST", "/users/user-1/servers/mine"),
    ("POST", "/users/user-1/tokens"),
    ("GET", "/users/user-1/server/progress"),
    ("POST", "/groups/big/users"),
    ("POST", "/groups/new"),
]


@pytest.mark.parametrize(("method", "path"), OTHERS)
def test_another_user_reaches_nothing_of_a_user_s(hub, callers, method, path):
    answer = hub.person("user-2").api(method, path, json={"users": ["user-2"]})
    assert answer.status_code in (403, 404), (answer.status_code, answer.text[:300])


def test_a_group_s_admin_can_not_give_a_profile_to_the_wrong_group(hub):
    lead = hub.person("lead")
    assert lead.api("POST", "/groups/team/users", json={"users": ["user-2"]}).status_code == 200
    answer = lead.api("POST", "/groups/big/users", json={"users": ["lead"]})
    assert answer.status_code in (403, 404)
    refused = lead.api("POST", "/users/lead/server", json={"profile": "big"})
    assert refused.status_code == 400
    assert "not open to your groups" in refused.json()["message"]
