"""Sends hostile cases by every door, and compares what came of them with what is allowed."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import quote

import requests

from deploy.quickstart.person import PAGE, Person
from deploy.quickstart.trial import TrialHub

from .bodies import Case
from .recorder import Recorder

#: seconds until an accepted server has come up
READY = 90.0
SERVER = "fuzz"


class Rogue(Person):
    """A person who sends what no page of the Hub sends."""

    def raw(self, method: str, path: str, body: bytes = b"") -> requests.Response:
        """A body for the REST API, as it is."""
        headers = {
            "Content-Type": "application/json",
            "X-XSRFToken": self._xsrf("/hub/"),
            "Referer": f"{self.base}/hub/home",
        }
        url = f"{self.base}/hub/api{path}"
        return self._web.request(method, url, data=body, headers=headers, timeout=PAGE)

    def send_form(self, door: str, fields: list[tuple[str, str]]) -> requests.Response:
        """Any fields to the spawn page: as a form, or in the address."""
        url = f"{self.base}/hub/spawn/{quote(self.name)}"
        if door == "query":
            return self._web.get(url, params=fields, timeout=PAGE)
        fields = [*fields, ("_xsrf", self._xsrf("/hub/"))]
        return self._web.post(url, data=fields, timeout=PAGE)


class Attacker:
    """A crowd of users, each of whom sends one case at a time.

    Parameters
    ----------
    hub:
        Where to.
    recorder:
        What the engine is asked for.
    crowd:
        How many at the same time.
    """

    def __init__(self, hub: TrialHub, recorder: Recorder, crowd: int = 8) -> None:
        self._hub = hub
        self._recorder = recorder
        self._idle: queue.SimpleQueue[Rogue] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(crowd)
        self._lock = threading.Lock()
        #: outcomes, by door and status
        self.seen: Counter[str] = Counter()
        self.accepted = 0
        self.cases = 0
        #: (profile, options) -> what a container of it is created with
        self.allowed: dict[str, dict[str, Any]] = {}
        for number in range(crowd):
            person = Rogue(hub.base, f"fuzz-{number}", hub.password)
            person.login()
            self._idle.put(person)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def learn(self, options: dict[str, str]) -> None:
        """Start a server in the way of the form, to know what it is to be created with."""
        person = self._idle.get()
        answer = person.ask(_as_form(options))
        assert answer.status_code == 200, answer.text[:500]
        person.wait(limit=READY)
        made = self._recorder.creates(person.name)[-1]
        stored = self._options(person, "")
        self.allowed[_key(stored)] = essence(made, stored)
        person.stop()
        self._idle.put(person)

    def attack(self, cases: Iterable[Case]) -> None:
        """Send all, several at a time; AssertionError with the first that did harm."""
        sent = [self._pool.submit(self._one, case) for case in cases]
        try:
            for done in sent:
                done.result()
        finally:
            for left in sent:
                left.cancel()
            wait(sent)

    def _one(self, case: Case) -> None:
        person = self._idle.get()
        try:
            self._send_and_judge(person, case)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from None
        finally:
            self._idle.put(person)

    def _send_and_judge(self, person: Rogue, case: Case) -> None:
        server = SERVER if case.door in ("named", "put", "patch") else ""
        before = len(self._recorder.creates(person.name, server))
        answer = send(person, case, server)
        with self._lock:
            self.cases += 1
            self.seen[f"{case.door} {answer.status_code}"] += 1
        assert answer.status_code < 500, (answer.status_code, answer.text[:400])
        if answer.status_code >= 400:
            assert readable(answer), (answer.status_code, visible(answer.text)[:500])
            made = self._recorder.creates(person.name, server)
            assert len(made) == before, "refused, and a container was created all the same"
            return
        self._judge_accepted(person, case, server, before)

    def _judge_accepted(self, person: Rogue, case: Case, server: str, before: int) -> None:
        state = self._settle(person, server)
        try:
            if state == "refused":
                # The answer came before the refusal, or before a start that failed: then too
                # nothing but a profile's container may have been asked for.
                for one in self._recorder.creates(person.name, server)[before:]:
                    assert self._is_allowed(one), f"asked for {one}"
                return
            options = self._options(person, server)
            made = self._recorder.creates(person.name, server)
            assert len(made) == before + 1, (before, len(made), options)
            known = self.allowed.get(_key(options))
            assert known is not None, f"accepted as {options}"
            wanted = case.value.get("profile") if isinstance(case.value, dict) else None
            # the Hub takes these two words for its own, and then the options from elsewhere
            if wanted is not None and not {"user_options", "display_name"} & set(case.value):
                assert options["profile"] == wanted
            got = essence(made[-1], options)
            assert got == known, {k: (got.get(k), known.get(k)) for k in got if got[k] != known[k]}
            with self._lock:
                self.accepted += 1
        finally:
            self._stop(person, server)

    def _is_allowed(self, made: dict[str, Any]) -> bool:
        """Whether some profile's container was asked for."""
        env = dict(text.partition("=")[::2] for text in made.get("Env") or ())
        word = env.get("WORD", "")
        options = {OWN_WORD: word} if ALLOWED_WORD.fullmatch(word) else {}
        return essence(made, options) in self.allowed.values()

    def _settle(self, person: Rogue, server: str) -> str:
        until = time.monotonic() + READY
        while time.monotonic() < until:
            found = self._servers(person).get(server)
            if found is None or not (found["ready"] or found["pending"]):
                return "refused"
            if found["ready"]:
                return "ready"
            time.sleep(0.1)
        raise AssertionError(f"neither ready nor refused after {READY:g} s")

    def _servers(self, person: Rogue) -> dict[str, Any]:
        answer = person.api("GET", f"/users/{person.name}")
        assert answer.status_code == 200, (answer.status_code, answer.text[:300])
        found: dict[str, Any] = answer.json().get("servers", {})
        return found

    def _options(self, person: Rogue, server: str) -> dict[str, Any]:
        found: dict[str, Any] = self._servers(person)[server]["user_options"]
        return found

    def _stop(self, person: Rogue, server: str) -> None:
        until = time.monotonic() + READY
        while True:
            found = self._servers(person).get(server)
            if found is None or not (found["ready"] or found["pending"]):
                return
            assert time.monotonic() < until, f"does not stop: {found}"
            person.cancel(server)
            time.sleep(0.1)


def send(person: Rogue, case: Case, server: str) -> requests.Response:
    """The case through its door; the answer to what starts a server."""
    user = f"/users/{quote(person.name)}"
    path = f"{user}/servers/{server}" if server else f"{user}/server"
    if case.door in ("form", "query"):
        return person.send_form(case.door, list(case.fields))
    if case.door in ("put", "patch"):
        person.raw("DELETE", path, b'{"remove": true}')
        answer = person.raw("PUT", path, b"{}" if case.door == "patch" else case.body)
        if case.door == "patch" and answer.status_code < 400:
            answer = person.raw("PATCH", path, case.body)
        return answer if answer.status_code >= 400 else person.raw("POST", path)
    answer = person.raw("POST", path, case.body)
    if case.door == "stored" and 400 <= answer.status_code < 500:
        # what was refused is stored all the same; an empty body uses it again
        return person.raw("POST", path)
    return answer


def readable(answer: requests.Response) -> bool:
    """Whether a person can read what is wrong, and nothing of our insides shows."""
    if "Traceback" in answer.text or 'File "' in answer.text:
        return False
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        return bool(str(answer.json().get("message", "")).strip())
    # the Hub's error page has the number, its form a line above the choices, its page of a start
    # that failed in the meantime says so
    text = visible(answer.text)
    return any(words in text for words in (str(answer.status_code), "Error:", "has failed"))


def visible(page: str) -> str:
    """The text of a page, without markup, scripts and styles."""
    text = re.sub(r"(?s)<script.*?</script>|<style.*?</style>|<[^>]*>", " ", page)
    return " ".join(text.split())


#: variables that are a server's own: its tokens, names and addresses
OWN = ("JUPYTERHUB_", "JPY_", "JUPYTER_")


#: the one option that takes a text of the user's own, and what it lets through
OWN_WORD, ALLOWED_WORD = "word--unlisted-choice", re.compile("[a-z]{1,8}", re.ASCII)


def essence(made: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What a create asks for, without what differs from server to server of one profile."""
    left = json.loads(json.dumps(made))
    variables = dict(text.partition("=")[::2] for text in left.pop("Env") or ())
    left["Env"] = {name: "" if name.startswith(OWN) else value for name, value in variables.items()}
    if OWN_WORD in options and left["Env"].get("WORD") == options[OWN_WORD]:
        left["Env"]["WORD"] = "as chosen"
    left["Labels"] = sorted(left.get("Labels") or {})
    host = left["HostConfig"]
    host["Binds"] = sorted(_place(bind) for bind in host.get("Binds") or ())
    for one in host.get("DeviceRequests") or ():
        one["DeviceIDs"] = len(one.get("DeviceIDs") or ())
    if "NVIDIA_VISIBLE_DEVICES" in left["Env"]:
        shown = left["Env"]["NVIDIA_VISIBLE_DEVICES"]
        left["Env"]["NVIDIA_VISIBLE_DEVICES"] = "void" if shown == "void" else "devices"
    # a network of the user's own has a name of its own
    host["NetworkMode"] = str(host.get("NetworkMode", "")).split("-")[0]
    left.pop("NetworkingConfig", None)
    left.pop("Hostname", None)
    return {name: value for name, value in left.items() if value not in (None, [], {}, "")}


def _place(bind: str) -> str:
    """The home's volume has the user's name in it; where it is mounted counts."""
    source, _, rest = bind.partition(":")
    return f"{'home' if source.startswith('gpus-home-') else source}:{rest}"


def _key(options: dict[str, Any]) -> str:
    word = options.get(OWN_WORD)
    if isinstance(word, str) and ALLOWED_WORD.fullmatch(word):
        options = {**options, OWN_WORD: "any"}
    return json.dumps(options, sort_keys=True)


def _as_form(options: dict[str, str]) -> dict[str, str]:
    slug = options["profile"]
    rest = {k: v for k, v in options.items() if k != "profile"}
    return {"profile": slug, **{f"profile-option-{slug}--{k}": v for k, v in rest.items()}}
