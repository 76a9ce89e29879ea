"""``install`` of an offline bundle: whole or not at all, and one line where it can't be."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.offline import bundle as maker
from deploy.offline import install

# files, and virtual environments
pytestmark = pytest.mark.slow


def wheel(folder: Path, name: str, *needs: str) -> None:
    """The smallest wheel that there is."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{name}.py": f"said = '{name}'\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def tarball(path: Path, **files: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a small bundle, on a machine with node."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "node").write_text("#!/bin/sh\n")
    (programs / "node").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")

    def build(*needs: str, name: str = "bundle", **facts: Any) -> Path:
        folder = tmp_path / name
        for part in ("wheels", "npm", "site"):
            (folder / part).mkdir(parents=True)
        wheel(folder / "wheels", "first", *needs)
        wheel(folder / "wheels", "second")
        proxy = {"package/bin/configurable-http-proxy": "#!/bin/sh\necho 5.0.0\n"}
        tarball(folder / "npm" / "proxy.tgz", **proxy)
        (folder / "site" / "jupyterhub_config.py").write_text(f"# {name}\n")
        (folder / "install").write_bytes(Path(install.__file__).read_bytes())
        (folder / "install").chmod(0o755)
        npm = [{"place": install.PROXY, "file": "npm/proxy.tgz"}]
        known = {**maker._facts(), "images": [], "npm": npm, **facts}
        maker._write_manifest(folder, known)
        return folder

    return build


def run(bundle: Path, prefix: Path, *options: str) -> tuple[int, str]:
    """The program as it stands in the bundle; exit code, and the last line of what it said."""
    done = subprocess.run(
        [sys.executable, str(bundle / "install"), "--prefix", str(prefix), *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert sum("error:" in line for line in done.stderr.splitlines()) == (done.returncode != 0)
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_all_of_it_is_installed_and_a_later_one_that_fails_changes_nothing(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    prefix = tmp_path / "opt"
    bundle = make(version="9.9")
    # what a killed run left is no release
    release = prefix / "releases" / f"9.9-{install.sha256(bundle / install.MANIFEST)[:12]}"
    (release / "venv" / "bin").mkdir(parents=True)
    (release / "venv" / "bin" / install.PROXY).touch()
    code, said = run(bundle, prefix)
    assert code == 0 and str(prefix / "current") in said
    assert os.readlink(prefix / "current") == f"releases/{release.name}"
    python = prefix / "current" / "venv" / "bin" / "python"
    answer = subprocess.run(
        [python, "-Ic", "import first, second; print(first.said, second.said)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "first second\n"
    proxy = prefix / "current" / "venv" / "bin" / install.PROXY
    assert subprocess.run([proxy], capture_output=True, check=True).stdout == b"5.0.0\n"
    assert (release / "site" / "jupyterhub_config.py").read_text() == "# bundle\n"
    # one package needs another that is not in the bundle
    code, said = run(make("absent", name="broken"), prefix)
    assert code == 1 and "absent" in said
    assert os.readlink(prefix / "current") == f"releases/{release.name}"
    assert list((prefix / "releases").iterdir()) == [release]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


WHEEL = "wheels/first-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        (WHEEL, flip, f"{WHEEL} is damaged"),
        (WHEEL, cut, f"{WHEEL} has"),
        (WHEEL, Path.unlink, f"{WHEEL} is missing"),
        ("npm/proxy.tgz", flip, "npm/proxy.tgz is damaged"),
        ("MANIFEST.json", flip, "MANIFEST.json is damaged"),
        ("MANIFEST.json", cut, "MANIFEST.json is damaged"),
        ("MANIFEST.json", Path.unlink, "is no whole bundle"),
        ("MANIFEST.json.sha256", Path.unlink, "is no whole bundle"),
        ("MANIFEST.json.sha256", lambda path: path.write_text(""), "MANIFEST.json is damaged"),
    ],
)
def test_a_damaged_bundle_is_one_line_and_nothing_is_installed(
    make: Callable[..., Path], tmp_path: Path, name: str, harm: Callable[[Path], Any], words: str
) -> None:
    bundle = make()
    assert run(bundle, tmp_path / "opt", "--check")[0] == 0
    harm(bundle / name)
    for options in (["--check"], []):
        code, said = run(bundle, tmp_path / "opt", *options)
        assert code == 1 and words in said
    assert not (tmp_path / "opt").exists()


def test_of_many_damaged_files_the_first_is_named_and_the_others_are_counted(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = make()
    for path in (bundle / "wheels").iterdir():
        cut(path)
    code, said = run(bundle, tmp_path / "opt")
    assert code == 1 and "first-1.0" in said and "(and 1 more files)" in said


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"python": "3.2"}, "the bundle is for Python 3.2"),
        ({"platform": "linux-pdp11"}, "linux-pdp11"),
        ({"format": 99}, "the bundle has format 99"),
        ({"images": [{"name": "a:1", "id": "x", "file": "a.tar"}]}, "Docker does not answer"),
    ],
)
def test_a_machine_that_does_not_fit_is_one_line_and_nothing_is_installed(
    make: Callable[..., Path], tmp_path: Path, facts: dict[str, Any], words: str
) -> None:
    code, said = run(make(**facts), tmp_path / "opt")
    assert code == 1 and words in said
    assert not (tmp_path / "opt").exists()


def test_without_node_it_says_so(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "programs" / "node").unlink()
    bundle = make()
    facts = json.loads((bundle / install.MANIFEST).read_text())
    os.environ["PATH"] = str(tmp_path / "programs")
    with pytest.raises(install.InstallError, match="node is missing"):
        install.check_machine(facts, with_engine=False)


@pytest.mark.parametrize("name", ["package/../../../x", "/x", "other/x"])
def test_a_package_that_would_write_elsewhere_is_refused(
    make: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    tarball(tmp_path / "p.tgz", **{name: "x"})
    with pytest.raises(install.InstallError, match="has no place there"):
        install.make_proxy(tmp_path, tmp_path / "release", [{"place": "p", "file": "p.tgz"}])
    assert not (tmp_path / "x").exists()


def test_a_place_that_can_not_be_written_is_one_line(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "opt").write_text("a file")
    code, said = run(make(), tmp_path / "opt")
    assert code == 1 and str(tmp_path / "opt") in said
    assert (tmp_path / "opt").read_text() == "a file"


def test_a_disk_that_is_too_small_is_one_line_before_anything_is_written(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, prefix = make(), tmp_path / "deep" / "opt"
    facts = install.read_manifest(bundle)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(install.InstallError, match=r"opt: No space left on device: .* 0\.0 MB are"):
        install.install(bundle, prefix, images=False)
    assert not prefix.parent.exists()
    monkeypatch.undo()
    install.check_room(bundle, prefix, facts)
    (bundle / "wheels" / "odd.whl").write_text("no archive")
    with pytest.raises(install.InstallError, match=r"odd\.whl is no package of Python: "):
        install.check_room(bundle, prefix, facts)


def test_a_bundle_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        raise maker.BundleError("pip could not collect the wheels")

    monkeypatch.setattr(maker, "_pack_npm", lambda folder: [])
    monkeypatch.setattr(maker, "_collect_wheels", fails)
    with pytest.raises(maker.BundleError, match="pip could not"):
        maker.make(tmp_path / "bundle", [])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bundle").mkdir()
    with pytest.raises(maker.BundleError, match="is there already"):
        maker.make(tmp_path / "bundle", [])
