"""What is said about an image, from facts as the engine and the look from inside give them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from jupyterhub_gpuspawner.doctor import image_checks, image_facts, image_probe
from jupyterhub_gpuspawner.doctor.finding import (
    FINE,
    FOUND,
    NOT_ALL_SEEN,
    Level,
    Unknown,
    exit_code,
)
from jupyterhub_gpuspawner.doctor.image_facts import ImageFacts

# real sockets, files or processes
pytestmark = pytest.mark.slow

MIB = 1024**2
#: of the shipped image, as Docker 26.1 answers
INSPECT: dict[str, Any] = {
    "Id": "sha256:1",
    "Architecture": "amd64",
    "Size": 540 * MIB,
    "Config": {
        "User": "1000",
        "Env": ["PATH=/opt/conda/bin:/usr/bin", "NB_UID=1000"],
        "Entrypoint": ["tini", "-g", "--", "start.sh"],
        "Cmd": ["start-notebook.sh"],
        "Healthcheck": {"Test": ["CMD", "healthcheck"]},
    },
}
#: and what the probe said in it
INSIDE: dict[str, Any] = {
    "python": "3.10.13",
    "prefix": "/opt/conda",
    "uid": 1000,
    "home": "/home/jovyan",
    "home_writable": True,
    "home_exists": True,
    "home_bytes": 4500,
    "launcher": "/opt/conda/bin/jupyterhub-singleuser",
    "versions": {
        "jupyterhub": "6.1.1",
        "jupyterlab": "4.6.6",
        "jupyter_server": "2.21.1",
        "notebook": None,
        "ipykernel": "7.3.0",
    },
    "rfc3987": False,
    "compiled": {"modules": 3875, "missing": 0, "stale": 0, "most": []},
    "start": {
        "launcher": 0.9,
        "total": 1.3,
        "failed": "",
        "packages": {"aiohttp": 0.14, "jupyterlab": 0.5},
        "extensions": {"jupyter_lsp": {"seconds": 0.03, "error": ""}},
        "kernels": {"python3": "/opt/conda/bin/python"},
    },
    "bytes_left": {"/root/.cache": 0},
    "driver_libraries": [],
    "secrets": [],
    "sudo": "",
    "set_user_id": [],
    "condarc": "channels:\n  - conda-forge\n  - nodefaults\n",
}


def facts(**planted: Any) -> ImageFacts:
    """A good image, but for what is planted: ``User=""``, ``start__failed="…"``."""
    inspect, inside = copy.deepcopy(INSPECT), copy.deepcopy(INSIDE)
    more = {"layers": planted.pop("layers", 7)}
    for path, value in planted.items():
        *way, last = path.split("__")
        target: Any = inspect["Config"] if path[0].isupper() else inside
        if path in ("Size", "Architecture"):
            target = inspect
        for name in way:
            target = target[name]
        target[last] = value
    return ImageFacts(
        name="lab/image",
        inspect=inspect,
        inside=inside,
        engine_architecture="amd64",
        hub="6.1.1",
        **more,
    )


def test_nothing_is_said_about_a_good_image() -> None:
    assert image_checks.judge(facts()) == []
    assert exit_code([]) == FINE


PLANTED: list[tuple[dict[str, Any], str, Level, str]] = [
    ({"Architecture": "arm64"}, "architecture", Level.ERROR, "--platform linux/amd64"),
    ({"User": ""}, "root-user", Level.ERROR, "USER 1000"),
    ({"User": "0:0"}, "root-user", Level.ERROR, "USER 1000"),
    (
        {"Env": ["NVIDIA_VISIBLE_DEVICES=all"]},
        "nvidia-visible-devices",
        Level.WARNING,
        "NVIDIA_VISIBLE_DEVICES=void",
    ),
    ({"Env": ["CUDA_VISIBLE_DEVICES=0"]}, "cuda-visible-devices", Level.WARNING, "leave"),
    ({"Env": ["HF_TOKEN=hf_abc"]}, "secret-in-environment", Level.ERROR, "type=secret"),
    (
        {"Env": ["https_proxy=http://me:pw@proxy:3128", "no_proxy=hub"]},
        "secret-in-environment",
        Level.ERROR,
        "type=secret",
    ),
    ({"Env": ["http_proxy=http://p:1"]}, "proxy-without-exceptions", Level.ERROR, "no_proxy="),
    ({"Healthcheck": None}, "no-health-check", Level.WARNING, "HEALTHCHECK"),
    ({"Healthcheck": {"Test": ["NONE"]}}, "no-health-check", Level.WARNING, "HEALTHCHECK"),
    ({"Entrypoint": ["start.sh"]}, "no-init", Level.WARNING, "tini"),
    ({"Entrypoint": None, "Cmd": None}, "no-init", Level.WARNING, "tini"),
    ({"Volumes": {"/data": {}}}, "declared-volumes", Level.WARNING, "VOLUME"),
    ({"Size": 20 * 1024 * MIB}, "large", Level.WARNING, "pull it on each machine"),
    ({"layers": 90}, "many-layers", Level.WARNING, "join RUN"),
    ({"home_exists": False}, "no-home", Level.ERROR, "install -d"),
    ({"home_writable": False}, "home-not-writable", Level.ERROR, "chown -R 1000"),
    ({"home_bytes": 900 * MIB}, "large-home", Level.WARNING, "/opt"),
    ({"launcher": ""}, "no-launcher", Level.ERROR, "jupyterhub==6.1.1"),
    ({"versions__jupyterhub": "5.4.0"}, "jupyterhub-version", Level.ERROR, "jupyterhub==6.1.1"),
    ({"versions__jupyterhub": "6.0.2"}, "jupyterhub-version", Level.WARNING, "jupyterhub==6.1.1"),
    ({"versions__jupyterlab": None}, "no-frontend", Level.WARNING, "pip install jupyterlab"),
    ({"start__kernels": {}}, "no-kernel", Level.ERROR, "ipykernel"),
    ({"compiled__missing": 3000}, "no-pyc", Level.WARNING, "compileall"),
    ({"compiled__stale": 3000}, "no-pyc", Level.WARNING, "compileall"),
    ({"rfc3987": True}, "rfc3987-syntax", Level.WARNING, "pip uninstall -y rfc3987-syntax"),
    ({"start__failed": "ImportError('x')"}, "launcher-fails", Level.ERROR, "pip check"),
    ({"start__total": 3.4}, "slow-start", Level.WARNING, "jupyterhub-gpuspawner/singleuser"),
    ({"start__packages": {"tensorflow": 2.5}}, "slow-import", Level.WARNING, "tensorflow"),
    (
        {"start__extensions": {"jupyter_ai": {"seconds": 1.9, "error": ""}}},
        "heavy-extension",
        Level.WARNING,
        "disable --sys-prefix jupyter_ai",
    ),
    (
        {"start__extensions": {"gone": {"seconds": 0.0, "error": "ModuleNotFoundError"}}},
        "broken-extension",
        Level.WARNING,
        "disable --sys-prefix gone",
    ),
    ({"bytes_left": {"/opt/conda/pkgs": 900 * MIB}}, "caches", Level.WARNING, "conda clean"),
    ({"driver_libraries": ["/usr/lib/libcuda.so.1"]}, "driver-inside", Level.ERROR, "cuda-toolkit"),
    ({"secrets": ["/home/jovyan/.netrc"]}, "secret-files", Level.ERROR, "revoke"),
    ({"sudo": "/usr/bin/sudo"}, "sudo", Level.WARNING, "leave sudo out"),
    ({"condarc": "channels:\n  - defaults\n"}, "conda-defaults", Level.WARNING, "conda-forge"),
]


@pytest.mark.parametrize(
    ("planted", "check", "level", "fix"),
    PLANTED,
    ids=[one[1] for one in PLANTED],
)
def test_a_planted_fault_is_the_one_that_is_found(
    planted: dict[str, Any], check: str, level: Level, fix: str
) -> None:
    (found,) = image_checks.judge(facts(**planted))
    assert (found.check, found.level) == (f"image.{check}", level)
    assert fix in found.fix
    assert exit_code([found]) == FOUND


def test_the_value_of_a_secret_is_never_shown() -> None:
    env = ["HF_TOKEN=hf_abc", "https_proxy=http://me:pw123@proxy:3128", "no_proxy=hub"]
    (found,) = image_checks.judge(facts(Env=env))
    assert "HF_TOKEN" in found.what
    assert not any(word in str(found.as_json()) for word in ("hf_abc", "pw123"))


def test_what_could_not_be_seen_is_said_and_is_not_fine() -> None:
    good = facts()
    blind = image_facts._with(good, Unknown(why="the image has no Python"))
    (found,) = image_checks.judge(blind)
    assert found.level is Level.UNKNOWN
    assert "no Python" in found.what
    assert exit_code([found]) == NOT_ALL_SEEN


def test_the_worst_is_said_first() -> None:
    found = image_checks.judge(facts(sudo="/usr/bin/sudo", User=""))
    assert [one.level for one in found] == [Level.ERROR, Level.WARNING]


def test_the_probe_is_read_behind_whatever_else_the_image_prints() -> None:
    said = f'Welcome!\n{image_probe.MARK}{{"uid": 1000}}\n'
    assert image_facts.read(said, 0) == {"uid": 1000}


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        ("", 97, "has no Python"),
        ("boom\nTypeError: x\n", 1, "exit code 1, the last line: TypeError: x"),
        (f"{image_probe.MARK}{{torn\n", 137, "exit code 137"),
    ],
)
def test_a_probe_that_says_nothing_is_unknown(said: str, code: int, why: str) -> None:
    found = image_facts.read(said, code)
    assert isinstance(found, Unknown)
    assert why in found.why


def test_import_times_are_summed_by_package_and_in_cpu_seconds() -> None:
    text = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:    400000 |     400000 |   slow.part\n"
        "import time:    200000 |     600000 | slow\n"
        "import time:       100 |        100 | quick\n"
    )
    assert image_probe.packages(text, share=0.5) == {"slow": 0.3, "quick": 0.0}
