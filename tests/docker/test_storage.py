"""The command that lists and deletes homes, on a real engine."""

from __future__ import annotations

import gc
import io
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from jupyterhub import orm
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.engine import homes, labels, owner, volumes
from jupyterhub_gpuspawner.errors import EngineConflict

MIB = 1024 * 1024
#: of the users that the Hub knows
BORN, SEEN = datetime(2026, 1, 2, 3, 4, 5, 678), datetime(2026, 3, 4, 5, 6, 7)
Said = pytest.CaptureFixture[str]


@pytest.fixture
def ledger(docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of the ledger that owns the engine; all volumes of this test are removed."""
    monkeypatch.setattr(owner, "OWNER_VOLUME", f"gpus-owner-{uuid.uuid4().hex[:8]}")
    mine = uuid.uuid4().hex
    owner.claim_engine(docker_client, mine)
    yield mine
    answer: Any = docker_client.api.volumes(filters={"label": labels.LEDGER})
    for volume in answer["Volumes"] or []:
        with suppress(docker.errors.APIError):
            docker_client.api.remove_volume(volume["Name"])


@pytest.fixture
def hub_db(tmp_path: Path) -> str:
    """A Hub's database with alice and bob."""
    url = f"sqlite:///{tmp_path}/jupyterhub.sqlite"
    engine = create_engine(url)
    orm.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(orm.User(id=1, name="alice", created=BORN, last_activity=SEEN))
        session.add(orm.User(id=2, name="bob", created=BORN, last_activity=None))
        session.commit()
    engine.dispose()
    return url


Make = Callable[..., str]


@pytest.fixture
def make(docker_client: docker.DockerClient, ledger: str) -> Make:
    """Makes a home; its volume's name."""

    def home(user: str, number: int, *, of: str = ledger, name: str | None = None) -> str:
        person = volumes.owner_id(user_id=number, created=BORN, hub="jupyterhub")
        found = labels.home_labels(ledger=of, user=user, owner=person)
        name = name or volumes.home_volume_name(user, person + of)
        docker_client.api.create_volume(name=name, labels=found)
        return name

    return home


@pytest.fixture
def run(engine: Any, hub_db: str, capsys: Said) -> Callable[..., tuple[int, str, str]]:
    """Run a command of storage; its exit code, result, and what it says beside it."""

    def command(*words: str, hub: str = hub_db) -> tuple[int, str, str]:
        code = main(["storage", *words, "--engine", engine.base_url, "--hub-db", hub])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def exists(docker_client: docker.DockerClient) -> Callable[[str], bool]:
    def look(name: str) -> bool:
        try:
            docker_client.api.inspect_volume(name)
        except docker.errors.NotFound:
            return False
        return True

    return look


def test_homes_are_listed_with_owner_size_and_last_use(
    make: Make, run: Run, run_container: Any, stub_image: str, ledger: str
) -> None:
    alice, bob = make("alice", 1), make("robert", 2)
    gone, other = make("\x1b[2Jeve", 3), make("dave", 4, of="another")
    run_container(
        stub_image,
        ["sh", "-c", "head -c 3145728 /dev/zero > /home/x"],
        volumes=[f"{alice}:/home"],
        user="0",
    ).wait(timeout=60)
    code, out, err = run("--warn", "2M", "--json")
    assert code == 0
    found = {one["volume"]: one for one in json.loads(out)}
    assert set(found) >= {alice, bob, gone, other}
    assert 3 * MIB <= found[alice].pop("bytes") < 4 * MIB
    assert found[alice] == {
        "volume": alice,
        "user": "alice",
        "owner": volumes.owner_id(user_id=1, created=BORN, hub="jupyterhub"),
        "ours": True,
        "user_exists": True,
        "driver": "local",
        "created": found[alice]["created"],
        "containers": 1,
        "last_activity": "2026-03-04T05:06:07Z",
    }
    # renamed since: the Hub's name counts
    assert found[bob]["user"] == "bob"
    assert (found[gone]["user_exists"], found[other]["ours"]) == (False, False)
    assert err == "warning: the home of 'alice' has 3 MiB, more than 2 MiB\n"

    code, out, err = run()
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    (line,) = [line for line in out.splitlines() if alice in line]
    assert line.split()[:4] == ["alice", "3", "MiB", "now"]
    (line,) = [line for line in out.splitlines() if gone in line]
    assert line.startswith("\\x1b[2Jeve") and line.endswith("user deleted")
    (line,) = [line for line in out.splitlines() if other in line]
    assert line.endswith("of another installation")


def test_without_the_hubs_database_the_list_says_what_it_does_not_know(
    make: Make, engine: Any, capsys: Said, run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    alice = make("alice", 1)
    monkeypatch.setenv("GPUS_STATE_DIR", str(tmp_path / "nowhere"))
    assert main(["storage", "--engine", engine.base_url, "--json"]) == 0
    said = capsys.readouterr()
    found = {one["volume"]: one for one in json.loads(said.out)}
    assert (found[alice]["user_exists"], found[alice]["last_activity"]) == (None, None)
    assert said.err.startswith("last use and deleted users are not known: ")
    # a database that was named has to be there
    code, out, err = run(hub=f"sqlite:///{tmp_path}/none.sqlite")
    assert (code, out) == (1, "")
    assert "there is no such file" in err


def test_chosen_homes_are_deleted_and_no_others(make: Make, run: Run, exists: Any) -> None:
    alice, bob, eve = make("alice", 1), make("bob", 2), make("eve", 3)
    code, out, err = run("delete", alice, eve, alice, "--yes")
    assert (code, out) == (0, f"deleted {alice}\ndeleted {eve}\n")
    assert f"{alice}: home of 'alice', 0 B, last use 2026-03-04\n" in err
    assert [exists(name) for name in (alice, bob, eve)] == [False, True, False]


@pytest.fixture
def make_wrong(
    make: Make, docker_client: docker.DockerClient, run_container: Any, stub_image: str
) -> Iterator[Callable[[str], str]]:
    """Makes a volume that may not be deleted; its name."""
    name = f"gpus-home-bob-{uuid.uuid4().hex[:12]}"

    def volume(kind: str) -> str:
        if kind == "the owner volume":
            return owner.OWNER_VOLUME
        if kind == "no labels":
            docker_client.api.create_volume(name=name)
        elif kind == "another ledger":
            make("bob", 2, of="another", name=name)
        elif kind == "in use":
            make("bob", 2, name=name)
            # never started: it has the volume all the same
            run_container(stub_image, start=False, volumes=[f"{name}:/home"])
        return name

    yield volume
    with suppress(docker.errors.APIError):
        docker_client.api.remove_volume(name)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no labels", "is not a home of this installation; nothing was deleted"),
        ("another ledger", "is not a home of this installation; nothing was deleted"),
        ("the owner volume", "is not a home of this installation; nothing was deleted"),
        ("not there", "is not a home of this installation; nothing was deleted"),
        ("in use", "is used by a container of 'bob'; stop that server first. Nothing was deleted"),
    ],
)
def test_one_that_may_not_be_deleted_keeps_all(
    make: Make, make_wrong: Callable[[str], str], run: Run, exists: Any, kind: str, words: str
) -> None:
    alice, wrong = make("alice", 1), make_wrong(kind)
    code, out, err = run("delete", alice, wrong, "--yes")
    assert (code, out) == (1, "")
    assert err == f"jupyterhub-gpuspawner storage delete: volume {wrong} {words}\n"
    assert exists(alice)
    assert exists(wrong) == (kind != "not there")


def test_a_container_that_comes_in_between_keeps_its_home(
    make: Make, ledger: str, exists: Any, docker_client: Any, run_container: Any, stub_image: str
) -> None:
    alice = make("alice", 1)
    container = run_container(stub_image, start=False, volumes=[f"{alice}:/home"])
    with pytest.raises(EngineConflict, match=f"is used by container {container.name}; stop"):
        homes.remove_home(docker_client, alice, ledger=ledger)
    with pytest.raises(EngineConflict, match="is not a home of this installation"):
        homes.remove_home(docker_client, alice, owner="somebody")
    assert exists(alice)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "deleted"), [("yes\n", True), ("y\n", False), ("", False)])
def test_the_question_wants_a_whole_yes(
    make: Make, run: Run, exists: Any, monkeypatch: Any, answer: str, deleted: bool
) -> None:
    alice = make("alice", 1)
    monkeypatch.setattr("sys.stdin", _Terminal(answer))
    code, _, err = run("delete", alice)
    assert (code, exists(alice)) == (int(not deleted), not deleted)
    assert "Delete this home with all files in it, for ever? Type yes: " in err


def test_without_a_terminal_nothing_is_deleted_unasked(
    make: Make, run: Run, exists: Any, monkeypatch: Any
) -> None:
    alice = make("alice", 1)
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    code, _, err = run("delete", alice)
    assert (code, exists(alice)) == (1, True)
    assert err.endswith("nothing was deleted: without a terminal it wants --yes\n")


def test_an_engine_named_before_the_second_word_counts(
    make: Make, engine: Any, exists: Any, hub_db: str, monkeypatch: Any
) -> None:
    alice = make("alice", 1)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    options = ["--engine", engine.base_url, "--hub-db", hub_db]
    assert main(["storage", *options, "delete", alice, "--yes"]) == 0
    assert not exists(alice)


# the SDK leaves its socket open where its first call fails
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_engine_that_does_not_answer_is_one_line(capsys: Said) -> None:
    assert main(["storage", "--engine", "unix:///nowhere"]) == 1
    gc.collect()
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "no answer from Docker" in said.err
