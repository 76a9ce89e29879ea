"""The decisions of ./quickstart: where Python comes from, how packages travel, the password."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from deploy.quickstart import hostpython, recipes, settings
from deploy.quickstart.hostpython import HostPython
from deploy.quickstart.trial import TrialHub
from jupyterhub_gpuspawner import ways
from jupyterhub_gpuspawner.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("bin/python3.10", True),
        ("bin/pip3", False),
        ("lib/libpython3.10.so.1.0", True),
        ("lib/python3.10/json/decoder.py", True),
        ("lib/python3.10/json/__pycache__/decoder.cpython-310.pyc", False),
        ("lib/python3.10/test/test_json.py", False),
        ("lib/python3.10/unittest/test/test_case.py", False),
        ("lib/python3.10/site-packages", True),
        ("lib/python3.10/site-packages/requests/api.py", False),
        ("lib/python3.10/config-3.10-x86_64-linux-gnu/libpython3.10.a", False),
        ("lib/python3.10/ensurepip/_bundled/pip-23.whl", True),
        ("include/python3.10/Python.h", False),
        ("share/man/man1/python.1", False),
    ],
)
def test_only_what_runs_goes_into_the_image(name, kept):
    assert hostpython.keep(name) is kept


def test_the_packed_python_lies_below_conda_and_belongs_to_root(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.10").write_text("elf")
    (tmp_path / "bin" / "python3").symlink_to("python3.10")
    out = io.BytesIO()
    hostpython.pack(HostPython(prefix=tmp_path, version="3.10.1"), out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert set(members) == {"conda/bin", "conda/bin/python3", "conda/bin/python3.10"}
    assert members["conda/bin/python3"].linkname == "python3.10"
    assert all(member.uid == 0 for member in members.values())


def test_the_newest_patch_release_is_asked_first(tmp_path):
    for version in ("3.10.9", "3.10.13", "3.11.7"):
        (tmp_path / "versions" / version).mkdir(parents=True)
    found = hostpython.candidates({"PYENV_ROOT": str(tmp_path)}, tmp_path / "home")
    ours = [path.parts[-3] for path in found if path.is_relative_to(tmp_path)]
    assert ours == ["3.10.13", "3.10.9"]


def test_a_program_that_is_no_python_3_10_is_passed_over(tmp_path):
    program = tmp_path / "versions" / "3.10.1" / "bin" / "python3.10"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert hostpython._ask(program) is None


def test_mirrors_come_from_the_environment_first_and_local_folders_stay_here():
    found = ways.transport(
        {"PIP_INDEX_URL": "https://one/simple", "https_proxy": "http://proxy:3128", "HOME": "/x"},
        {
            "index-url": "https://two/simple",
            "extra-index-url": "file:///opt/pypi/simple https://three/simple",
            "trusted-host": "three",
        },
    )
    assert found == {
        "PIP_INDEX_URL": "https://one/simple",
        "PIP_EXTRA_INDEX_URL": "https://three/simple",
        "PIP_TRUSTED_HOST": "three",
        "https_proxy": "http://proxy:3128",
    }


def test_pip_says_its_settings_in_quoted_lines():
    text = "global.cert='/etc/ca.crt'\nglobal.index-url='https://a/simple'\n:env:.timeout='3'\n"
    assert ways.parse_pip_settings(text) == {
        "cert": "/etc/ca.crt",
        "index-url": "https://a/simple",
        "timeout": "3",
    }


def test_the_most_specific_bundle_of_certificates_that_exists_is_taken(tmp_path):
    pip, general = tmp_path / "pip.crt", tmp_path / "all.crt"
    general.write_text("CA")
    environ = {"PIP_CERT": str(pip), "SSL_CERT_FILE": str(general)}
    assert ways.certificates(environ, {}) == general
    pip.write_text("CA")
    assert ways.certificates(environ, {}) == pip


def test_a_server_that_can_not_be_reached_does_not_answer():
    assert not ways.answers("http://127.0.0.1:9/nothing", limit=1)


def test_the_pinned_installer_and_its_mirror(monkeypatch):
    text = (ROOT / "images" / "base" / "Dockerfile").read_text()
    url = recipes.installer_url(text, {"MINICONDA_MIRROR": "https://mirror/miniconda/"})
    assert url.startswith("https://mirror/miniconda/Miniconda3-py310_")
    assert len(recipes.dockerfile_default(text, "MINICONDA_SHA256")) == 64


def test_python_comes_from_miniconda_then_this_machine_then_debian(monkeypatch):
    reachable = True
    here = HostPython(prefix=Path("/py"), version="3.10.7")
    monkeypatch.setattr(ways, "answers", lambda url: reachable)
    monkeypatch.setattr(hostpython, "find", lambda: here)
    assert recipes.choose_source({})[0] == "miniconda"
    reachable = False
    assert recipes.choose_source({}) == ("host", "3.10.7", here)
    monkeypatch.setattr(hostpython, "find", lambda: None)
    assert recipes.choose_source({})[0] == "debian"


def test_a_forced_source_of_python_is_obeyed_or_refused(monkeypatch):
    monkeypatch.setattr(hostpython, "find", lambda: None)
    assert recipes.choose_source({"GPUS_PYTHON_SOURCE": "debian"})[0] == "debian"
    with pytest.raises(ConfigError, match="use one of miniconda, host, debian"):
        recipes.choose_source({"GPUS_PYTHON_SOURCE": "homebrew"})
    with pytest.raises(ConfigError, match=r"no whole Python 3\.10"):
        recipes.choose_source({"GPUS_PYTHON_SOURCE": "host"})


def test_the_password_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "password"
    made = settings.password(path)
    assert len(made) >= 12
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert settings.password(path) == made


def test_settings_are_quoted_for_the_shell():
    line = settings.shell_line("NAME", "it's $HOME; rm x")
    answer = subprocess.run(
        ["bash", "-c", f'{line}; printf %s "$NAME"'], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "it's $HOME; rm x"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bogus"], "unknown option '--bogus'"),
        (["--port", "eighty"], "--port needs a number"),
        (["--port=70000"], "--port needs a number"),
        (["--simulate", "0"], "--simulate needs a number"),
        (["--simulate"], "--simulate needs a number"),
    ],
)
def test_a_wrong_option_of_quickstart_is_one_clear_line(options, says):
    answer = subprocess.run([ROOT / "quickstart", *options], capture_output=True, text=True)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert says in answer.stderr


def test_quickstart_explains_itself():
    answer = subprocess.run([ROOT / "quickstart", "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    for option in ("--port", "--simulate", "--smoke", "--help"):
        assert option in answer.stdout


def test_a_trial_takes_no_settings_of_a_site_from_the_environment(monkeypatch):
    monkeypatch.setenv("GPUS_LOGIN", "oidc")
    monkeypatch.setenv("GPUS_DB_URL", "postgresql://site")
    monkeypatch.setenv("GPUS_BRIDGE_IP", "172.18.0.1")
    trial = TrialHub(image="x", simulate=1)
    trial.discard()
    given = {name for name in trial._env if name.startswith("GPUS_")}
    assert not given & {"GPUS_LOGIN", "GPUS_DB_URL"}
    assert {"GPUS_BRIDGE_IP", "GPUS_PASSWORD", "GPUS_STATE_DIR"} <= given
