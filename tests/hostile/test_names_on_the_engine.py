"""Users whose names are made to break something get a server of their own each."""

from __future__ import annotations

import re

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels

NAMES = [
    "plain.name",
    "plain-name",
    "<img src=x onerror=alert(1)>",
    "{username}",
    "{{7*7}}",
    "%s%n",
    "$(reboot)`id`",
    "../../etc/passwd".replace("/", "\\"),
    "a b  c",
    "line\nbreak",
    "名前",
    "é",
    "x" * 255,
]
LEGAL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


def test_a_dozen_odd_names_have_containers_and_homes_of_their_own(hub, docker_client):
    people = []
    for name in NAMES:
        person = hub.person(name)
        answer = person.ask({"profile": "plain"})
        assert answer.status_code == 200, (name, answer.text[:300])
        people.append(person)
    for person in people:
        person.wait(limit=120)
    containers = docker_client.containers.list(filters={"label": labels.LEDGER})
    by_user = {container.labels[labels.USER]: container for container in containers}
    assert set(by_user) >= {person.name for person in people}
    assert len({person.name for person in people}) == len(NAMES)
    homes, names, hosts, networks = set(), set(), set(), set()
    for person in people:
        container = by_user[person.name]
        (home,) = [m["Name"] for m in container.attrs["Mounts"] if m["Type"] == "volume"]
        homes.add(home)
        names.add(container.name)
        hosts.add(container.attrs["Config"]["Hostname"])
        networks.update(container.attrs["NetworkSettings"]["Networks"])
        assert LEGAL.fullmatch(container.name), (person.name, container.name)
        assert LEGAL.fullmatch(home), (person.name, home)
        code, output = container.exec_run(
            ["sh", "-c", "echo mine > /home/jovyan/file; ls /home/jovyan"]
        )
        assert (code, output) == (0, b"file\n"), person.name
        assert person.visit("facts").status_code == 200, person.name
    assert len(homes) == len(names) == len(hosts) == len(networks) == len(NAMES)
    assert all(LEGAL.fullmatch(name) for name in networks)
    for person in people:
        person.stop()
    wait_for("the end of all", 60, lambda: not docker_client.containers.list())
