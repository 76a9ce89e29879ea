"""Profiles of environments: what a file may say, what becomes of it, how a mistake is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.cli import images
from jupyterhub_gpuspawner.cli.command import CommandError
from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.environments import build, spec
from jupyterhub_gpuspawner.environments import install_environment as inside
from jupyterhub_gpuspawner.errors import ConfigError

# real sockets, files or processes
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = {
    "name": "toy",
    "channels": ["conda-forge", "nodefaults"],
    "dependencies": ["python=3.10", "ipykernel", "pip", "toy=1.*", {"pip": ["requests==2.32.0"]}],
}


def changed(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def test_a_good_file_is_read() -> None:
    found = spec.parse(GOOD)
    assert found.channels == ("conda-forge",)
    # what every solver reads
    assert found.conda == ("python=3.10", "ipykernel", "pip", "toy=1")
    assert found.pip == ("requests==2.32.0",)


def test_another_python_replaces_the_files() -> None:
    found = spec.parse(GOOD, python="3.12")
    assert found.conda[0] == "python=3.12"
    assert "python=3.10" not in found.conda
    assert found.digest() != spec.parse(GOOD).digest()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "it is no environment"),
        (changed(dependency=[]), "unknown field 'dependency'; there are: channels"),
        (changed(prefix="/opt/x"), "prefix is not taken into an image"),
        (changed(name="My Env"), "name is 'My Env'; want small letters"),
        (changed(name="../../etc"), "want small letters"),
        (changed(channels="conda-forge"), "channels want a list"),
        (changed(channels=["defaults"]), "asks for terms"),
        (changed(channels=["https://repo.anaconda.com/pkgs/main"]), "asks for terms"),
        (changed(channels=["nodefaults"]), "add conda-forge"),
        (changed(dependencies=[]), "dependencies want a list"),
        (changed(dependencies=["python", 7]), "dependencies have 7"),
        (changed(dependencies=["python", {"npm": []}]), "dependencies have {'npm': []}"),
        (changed(dependencies=["ipykernel"]), "have no python"),
        (changed(dependencies=["python"]), "have no ipykernel"),
        (changed(dependencies=["python", {"pip": ["ipykernel"]}]), "have no pip"),
        (changed(dependencies=["python", "pip", {"pip": ["-e ."]}]), "options and local files"),
        (changed(dependencies=["python", "pip", {"pip": ["x @ file:///y"]}]), "local files"),
    ],
)
def test_a_mistake_is_told_in_one_line(content: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec.parse(content)
    assert words in str(caught.value)


def test_broken_yaml_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "environment.yml"
    file.write_text("name: x\nchannels: [conda-forge\ndependencies:\n")
    assert main(["image", "build", str(file)]) == 1
    said = capsys.readouterr().err
    assert "environment.yml, line 3, column 13: broken YAML" in said
    assert said.count("\n") == 1
    assert main(["image", "build", "no-such-profile"]) == 1
    assert "tried no-such-profile and images/no-such-profile" in capsys.readouterr().err


def write(folder: Path, name: str, **fields: Any) -> Path:
    path = folder / f"{name}.yml"
    # JSON is YAML
    path.write_text(json.dumps(changed(name=name, **fields)))
    return path


def context(tmp_path: Path, profile: Path, **more: Any) -> Path:
    plan = build.plan_of(str(profile), python=None, base="lab/base")
    plan = replace(plan, **more)
    folder = tmp_path / "context"
    folder.mkdir()
    build.write_context(plan, folder)
    return folder


def test_each_environment_has_a_stage_of_its_own(tmp_path: Path) -> None:
    profile = tmp_path / "two"
    profile.mkdir()
    first, _ = write(profile, "a"), write(profile, "b")
    made = context(tmp_path, profile, channels={"conda-forge": "https://mirror.lab/cf"})
    text = (made / "Dockerfile").read_text()
    assert "FROM tool AS env0" in text
    assert "FROM tool AS env1" in text
    # what a stage copies is its own alone: the other's change does not build it again
    assert "COPY env0.json install_environment.py /tmp/build/" in text
    assert text.count("COPY --from=env") == 4
    wish = json.loads((made / "env0.json").read_text())
    assert wish["channels"] == ["https://mirror.lab/cf"]
    assert wish["digest"] == spec.read(first).digest()


def test_a_channel_in_a_folder_goes_into_the_build(tmp_path: Path) -> None:
    profile = tmp_path / "one"
    profile.mkdir()
    write(profile, "a")
    channel = tmp_path / "channel" / "noarch"
    channel.mkdir(parents=True)
    (channel / "repodata.json").write_text("{}")
    made = context(tmp_path, profile, channels={"conda-forge": str(channel.parent)})
    wish = json.loads((made / "env0.json").read_text())
    assert wish["channels"] == ["file:///tmp/build/channels/0"]
    assert (made / "channels" / "0" / "noarch" / "repodata.json").is_file()
    (tmp_path / "context").rename(tmp_path / "before")
    with pytest.raises(ConfigError, match=r"has no SUBDIR/repodata\.json"):
        context(tmp_path, profile, channels={"conda-forge": str(tmp_path)})


def test_a_lock_counts_for_exactly_its_file(tmp_path: Path) -> None:
    profile = tmp_path / "one"
    profile.mkdir()
    file = write(profile, "a")
    lock = spec.lock_of(file, None)
    lock.write_text(json.dumps({"environment": spec.read(file).digest()}))
    made = context(tmp_path, profile)
    text = (made / "Dockerfile").read_text()
    assert "env0.json /tmp/build/lock0.json" in " ".join(text.split())
    (tmp_path / "context").rename(tmp_path / "before")
    write(profile, "a", dependencies=["python=3.11", "ipykernel"])
    with pytest.raises(ConfigError, match="is of another state of the file beside it"):
        context(tmp_path, profile)
    lock.write_text("{")
    with pytest.raises(ConfigError, match="is no lock"):
        build.write_context(build.plan_of(str(profile), python=None, base="b"), tmp_path)
    # another Python has a lock of its own
    assert spec.lock_of(file, "3.12").name == "a-py3.12.lock.json"


def test_two_environments_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yml").write_text(json.dumps(GOOD))
    with pytest.raises(ConfigError, match="two files are called 'toy'"):
        spec.folder(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no environment\.yml"):
        spec.folder(ROOT / "docs")


def test_mirrors_proxy_and_ca_are_arguments(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("-")
    found, bundle = build.transport(
        {}, index="https://pypi.lab/simple", proxy="http://proxy.lab:3128", ca=str(ca)
    )
    assert found["PIP_INDEX_URL"] == "https://pypi.lab/simple"
    assert found["https_proxy"] == found["http_proxy"] == "http://proxy.lab:3128"
    assert bundle == ca
    with pytest.raises(ConfigError, match="there is no such file"):
        build.transport({}, index=None, proxy=None, ca=str(tmp_path / "none"))


def test_the_digest_is_of_all_locks() -> None:
    one = build.digest_of({"a": b"1", "b": b"2"})
    assert one == build.digest_of({"b": b"2", "a": b"1"})
    assert one != build.digest_of({"a": b"12", "b": b""})


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param({"hashes": {"sha256": "ab"}}, id="of the index"),
        pytest.param({"hash": "sha256=ab"}, id="computed by pip 23.0"),
        pytest.param({"hash": "sha256=ab", "hashes": {"sha256": "ab"}}, id="computed by pip 24"),
    ],
)
def test_what_pip_installed_is_pinned_with_its_hash(archive: dict[str, Any]) -> None:
    entry = {
        "metadata": {"name": "toy", "version": "1.0"},
        "download_info": {"archive_info": archive},
    }
    assert inside.pin(entry) == "toy==1.0 --hash=sha256:ab"


def test_no_lock_is_written_where_a_package_has_no_hash(tmp_path: Path) -> None:
    git = {"metadata": {"name": "toy", "version": "1.0"}, "download_info": {"vcs_info": {}}}
    files = [write(tmp_path, name) for name in ("a", "b")]
    good, loose = ({"pip": [line]} for line in ("own==2 --hash=sha256:ab", inside.pin(git)))
    made = build.Built(
        tag="lab/toys:1",
        id="sha256:1",
        lock="sha256:2",
        locks={"a": json.dumps(good).encode(), "b": json.dumps(loose).encode()},
        seconds=1.0,
    )
    plan = build.plan_of(str(tmp_path), python=None, base="b")
    with pytest.raises(CommandError, match=r"b\.yml: no lock .*lab/toys:1 is built: toy==1\.0 "):
        images._write_locks(plan, made)
    assert not any(spec.lock_of(file, None).exists() for file in files)
    found = images._write_locks(plan, replace(made, locks=dict.fromkeys("ab", made.locks["a"])))
    assert found == [str(spec.lock_of(file, None)) for file in files]


@pytest.mark.parametrize("profile", ["cpu", "pytorch", "tensorflow"])
def test_the_shipped_profiles_are_right(profile: str) -> None:
    found = spec.folder(ROOT / "images" / profile)
    assert len(found) == (2 if profile == "tensorflow" else 1)
    assert len(spec.folder(ROOT / "images" / profile, python="3.12")) == len(found)
    for file, environment in found:
        assert environment.channels == ("conda-forge",)
        assert "nodefaults" in file.read_text()
        # the kernel is called as the file or its folder
        assert environment.name == (profile if file.stem == "environment" else file.stem)
        assert environment.conda[0] == "python=3.10" and "pip" in environment.conda
        # what pip is to fetch is exact: no lock lies beside it here
        assert all("==" in one for one in environment.pip)
