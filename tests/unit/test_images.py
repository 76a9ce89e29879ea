"""Images: what a recipe's digest covers, how a build is followed, and how its failure reads."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path

import pytest
from docker.errors import APIError, ImageNotFound

from jupyterhub_gpuspawner import images
from jupyterhub_gpuspawner.errors import EngineError, EngineUnknown, ImageMissing
from jupyterhub_gpuspawner.images import RECIPE_LABEL, Recipe, follow_build

DOCKERFILE = "ARG BASE=debian\nFROM ${BASE}\nARG PIP_INDEX_URL=\nCOPY run /run\n"


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "run").write_text("#!/bin/sh\n")
    return folder


def recipe(context, **changes):
    return Recipe(**({"repository": "gpus/test", "context": context} | changes))


class FakeImage:
    def __init__(self, store, image_id, labels):
        self.store, self.id, self.labels = store, image_id, labels

    def tag(self, repository, tag):
        self.store.by_name[f"{repository}:{tag}"] = self


class FakeEngine:
    """An engine that knows images by name or id, and builds what its stream says."""

    def __init__(self, events=(), *, fails=None, pulls=None):
        self.by_name, self.events, self.fails, self.pulls = {}, events, fails, pulls
        self.images = self.api = self
        self.built = []

    def get(self, name):
        if self.fails:
            raise self.fails
        if name not in self.by_name:
            raise ImageNotFound(f"No such image: {name}")
        return self.by_name[name]

    def build(self, *, fileobj, tag, labels, buildargs, network_mode, **_):
        assert network_mode == "host"
        with tarfile.open(fileobj=fileobj) as archive:
            files = archive.getnames()
        self.built.append((tag, buildargs, files))
        image = FakeImage(self, "sha256:new", labels)
        self.by_name[tag] = self.by_name["sha256:new"] = image
        return iter(self.events)

    def pull(self, repository, tag, stream, decode):
        return self.pulls(repository, tag)


GOOD = [
    {"stream": "Step 1/2 : FROM debian\n"},
    {"stream": " ---> 1234\n"},
    {"stream": "Step 2/2 : COPY run /run\n"},
    {"aux": {"ID": "sha256:new"}},
    {"stream": "Successfully built 1234\n"},
]


def test_the_digest_is_the_same_for_a_copy_of_the_folder_elsewhere(context, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in context.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert recipe(other).digest() == recipe(context).digest()


def test_the_digest_changes_with_content_mode_name_argument_and_base(context):
    seen = {recipe(context).digest(), recipe(context, arguments={"BASE": "x"}).digest()}
    seen.add(recipe(context, salt="sha256:base").digest())
    (context / "run").chmod(0o755)
    seen.add(recipe(context).digest())
    (context / "run").write_text("#!/bin/bash\n")
    seen.add(recipe(context).digest())
    (context / "run").rename(context / "run2")
    seen.add(recipe(context).digest())
    assert len(seen) == 6


def test_mirrors_and_caches_do_not_change_the_digest(context):
    before = recipe(context).digest()
    (context / "__pycache__").mkdir()
    (context / "__pycache__" / "run.pyc").write_bytes(b"x")
    assert recipe(context, transport={"PIP_INDEX_URL": "https://mirror"}).digest() == before


def test_only_declared_arguments_and_proxies_reach_the_build(context):
    made = recipe(
        context,
        arguments={"BASE": "debian:12", "UNKNOWN": "1"},
        transport={"PIP_INDEX_URL": "https://mirror", "DEBIAN_MIRROR": "x", "https_proxy": "p"},
    )
    assert made.build_arguments() == {
        "BASE": "debian:12",
        "PIP_INDEX_URL": "https://mirror",
        "https_proxy": "p",
    }


def test_the_context_holds_the_folder_and_the_extra_files_as_root(context, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("CA")
    out = io.BytesIO()
    images.pack(recipe(context, extra_files={"ca.crt": bundle}), out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert set(members) == {"Dockerfile", "run", "ca.crt"}
    assert {(member.uid, member.uname) for member in members.values()} == {(0, "root")}


def test_a_build_shows_each_step_and_gives_the_image_id():
    shown = []
    assert follow_build("gpus/test", GOOD, shown.append) == "sha256:new"
    assert shown == [
        "gpus/test: step 1 of 2: FROM debian",
        "gpus/test: step 2 of 2: COPY run /run",
    ]


def test_a_failed_build_shows_its_last_lines_and_no_password_of_a_mirror():
    log = [{"stream": f"line {number}\n"} for number in range(40)]
    command = "|1 PIP_INDEX_URL=https://me:secret@mirror /bin/sh -c pip install x"
    failure = {"error": f"The command '{command}' returned a non-zero code: 7"}
    with pytest.raises(EngineError) as caught:
        follow_build("gpus/test", [*log, failure], lambda line: None)
    text = str(caught.value)
    assert "gpus/test: the image could not be built: a step ended with 7" in text
    assert "line 39" in text and "line 25" in text and "line 24" not in text
    assert "secret" not in text


def test_a_stream_that_ends_without_an_image_is_a_failure():
    with pytest.raises(EngineError, match="ended without an image"):
        follow_build("gpus/test", GOOD[:2], lambda line: None)


def test_the_first_run_builds_and_the_second_skips(context):
    engine = FakeEngine(GOOD)
    first = images.ensure(engine, recipe(context), lambda line: None)
    second = images.ensure(engine, recipe(context), lambda line: None)
    assert len(engine.built) == 1
    assert first.id == second.id == "sha256:new"
    assert second.seconds == 0.0
    assert engine.by_name["gpus/test:latest"].id == "sha256:new"


def test_a_changed_file_builds_again(context):
    engine = FakeEngine(GOOD)
    images.ensure(engine, recipe(context), lambda line: None)
    (context / "run").write_text("changed")
    images.ensure(engine, recipe(context), lambda line: None)
    assert len(engine.built) == 2


def test_an_image_of_the_same_name_from_elsewhere_is_not_taken_for_ours(context):
    made = recipe(context)
    engine = FakeEngine(GOOD)
    engine.by_name[made.tag] = FakeImage(engine, "sha256:other", {RECIPE_LABEL: "0" * 64})
    assert not images.present(engine, made.tag, made.digest())
    assert images.present(engine, made.tag)


def test_an_engine_that_fails_says_nothing_about_an_image():
    engine = FakeEngine(fails=APIError("500 Server Error"))
    with pytest.raises(EngineUnknown, match="does not answer"):
        images.present(engine, "gpus/test:latest")


def test_a_registry_that_stays_silent_is_given_up():
    released = threading.Event()

    def pulls(repository, tag):
        released.wait(5)
        return iter(())

    try:
        with pytest.raises(ImageMissing, match="no answer for 0 s"):
            images.pull(FakeEngine(pulls=pulls), "debian:12", lambda line: None, silence=0.05)
    finally:
        released.set()


def test_a_pull_that_fails_in_the_middle_is_a_missing_image():
    def pulls(repository, tag):
        assert (repository, tag) == ("registry:5000/a/b", "latest")
        return iter([{"status": "Pulling from a/b"}, {"error": "manifest unknown"}])

    shown = []
    with pytest.raises(ImageMissing, match="manifest unknown"):
        images.pull(FakeEngine(pulls=pulls), "registry:5000/a/b", shown.append)
    assert shown == ["registry:5000/a/b: Pulling from a/b"]


def test_the_projects_own_images_declare_what_the_builds_pass():
    root = Path(__file__).parents[2] / "images"
    base = (root / "base" / "Dockerfile").read_text()
    assert "ARG MINICONDA_SHA256=" in base
    for name in ("PYTHON_SOURCE", "MINICONDA_MIRROR", "CONDA_CHANNEL", "DEBIAN_MIRROR"):
        assert f"ARG {name}=" in base
    single = (root / "singleuser" / "Dockerfile").read_text()
    # a variable of a later stage would stay in the image's history
    stages = single.split("FROM ")
    assert "PIP_INDEX_URL" in stages[1] and "PIP_INDEX_URL" not in stages[2]
