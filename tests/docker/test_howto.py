"""Commands of how-tos, run as they stand there."""

from __future__ import annotations

import json
import shutil

import pytest

from deploy.quickstart.trial import ROOT
from jupyterhub_gpuspawner.doctor.finding import FOUND, NOT_ALL_SEEN
from jupyterhub_gpuspawner.engine import labels, owner
from tests import howto


@pytest.fixture
def site(engine, tmp_path):
    """Where an admin types: runs commands there; exit code, output, errors."""

    def run(command, typed=""):
        if command.startswith("docker ") and shutil.which("docker") is None:
            pytest.skip("Docker's command is not on this machine")
        done = howto.shell(tmp_path, command, typed=typed, DOCKER_HOST=engine.base_url)
        return done.returncode, done.stdout, done.stderr

    run.folder = tmp_path
    return run


@pytest.fixture
def homes(docker_client):
    """The homes that the page names, of the ledger that owns the engine."""
    ledger = owner.engine_owner(docker_client)
    mine = ledger is None
    if mine:
        ledger = "the-ledger-of-a-how-to"
        owner.claim_engine(docker_client, ledger)
    names = ["gpus-home-ann-0123456789ab", "gpus-home-bob-ba9876543210"]
    for name in names:
        found = labels.home_labels(ledger=ledger, user=name.split("-")[2], owner=name[-12:])
        docker_client.api.create_volume(name=name, labels=found)
    yield names
    for volume in docker_client.volumes.list():
        if volume.name in names or (mine and volume.name == owner.OWNER_VOLUME):
            volume.remove()


def test_homes_are_listed_and_deleted_as_the_page_says(site, homes, docker_client):
    show, delete = howto.blocks("volumes", __file__)
    plain, as_json = howto.lines(show)
    code, said, wrong = site(plain)
    assert code == 0 and all(name in said for name in homes), said + wrong
    code, said, wrong = site(as_json)
    assert code == 0, wrong
    assert {one["volume"] for one in json.loads(said)} >= set(homes)
    # nobody is there who could say yes
    code, _, wrong = site(delete)
    assert code == 1 and wrong.endswith("nothing was deleted: without a terminal it wants --yes\n")
    # as on a terminal
    terminal = f"script --quiet --return --command '{delete.strip()}' /dev/null"
    code, said, wrong = site(terminal, "yes\n")
    assert code == 0, said + wrong
    left = {volume.name for volume in docker_client.volumes.list()}
    assert not left & set(homes)


def test_an_image_is_built_and_looked_at_as_the_pages_say(site, docker_client, stub_image):
    (build,) = howto.blocks("write-your-own-image", __file__)
    # it is no image for servers, and is told so
    (site.folder / "Dockerfile").write_text("FROM debian:bookworm-slim\nUSER 1000\n")
    code, said, wrong = site(build)
    assert code == 0, said + wrong
    try:
        done = [site(line) for line in howto.commands("images", __file__) if " check " in line]
    finally:
        docker_client.images.remove("lab/torch:1", noprune=True)
    assert len(done) == 3 and {code for code, _, _ in done} == {FOUND}, done
    (_, text, _), (_, listed, _), _ = done
    findings = json.loads(listed)["findings"]
    assert findings and all(one["what"] in text for one in findings)


def test_the_doctor_looks_as_the_page_says(site, stub_image):
    look, with_settings, show = howto.blocks("doctor", __file__)
    plain, as_json = howto.lines(look)
    # where no configuration is: the machine alone
    code, said, wrong = site(plain)
    assert code in (FOUND, NOT_ALL_SEEN) and "checks: " in said, said + wrong
    shutil.copy(ROOT / "jupyterhub_config.py", site.folder)
    code, said, wrong = site(as_json.replace("/etc/jupyterhub/", f"{site.folder}/"))
    found = {one["check"]: one["what"] for one in json.loads(said)["findings"]}
    assert code == FOUND and "GPUS_PASSWORD" in found["hub.config"], said + wrong
    settings = f"GPUS_PASSWORD='long enough'\nGPUS_STATE_DIR=state\nGPUS_IMAGE={stub_image}\n"
    (site.folder / ".env").write_text(settings)
    code, said, wrong = site(with_settings)
    assert code in (FOUND, NOT_ALL_SEEN) and "GPUS_PASSWORD" not in said, said + wrong
    code, listed, wrong = site(show)
    assert code == 0 and len(listed.splitlines()) > 30, wrong


def test_what_the_pages_ask_docker_is_answered(site, docker_client):
    (networks,) = howto.blocks("isolate-users", __file__)
    (servers,) = howto.blocks("troubleshoot-a-start", __file__)
    for command, word in ((networks, "DRIVER"), (servers, "IMAGE")):
        code, said, wrong = site(command)
        assert code == 0 and word in said.splitlines()[0], said + wrong


def test_an_engine_is_given_up_as_the_page_says(site, docker_client):
    (command,) = howto.blocks("run-it", __file__)
    if owner.engine_owner(docker_client) is None:
        owner.claim_engine(docker_client, "the-ledger-of-a-how-to")
    code, _, wrong = site(command)
    assert code == 0, wrong
    assert owner.engine_owner(docker_client) is None
