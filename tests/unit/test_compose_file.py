"""``deploy/compose.yml``, its env file and the images' recipes, without an engine."""

from __future__ import annotations

import io
import json
import re
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import node_packages
from deploy.compose import envfile, recipes
from jupyterhub_gpuspawner import environment

# real sockets, files or processes
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES = COMPOSE["services"]
EXAMPLE = envfile.EXAMPLE.read_text()

each = pytest.mark.parametrize("name", sorted(SERVICES))


@each
def test_every_service_has_limits_a_health_check_and_a_log_that_ends(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["cpus"] == 1, "more than a small machine has would be refused"
    assert service["pids_limit"] > 0
    check = service["healthcheck"]
    assert check["test"][0] == "CMD" and {"interval", "timeout", "retries"} <= set(check)
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert service["restart"] == "unless-stopped"


@each
def test_no_service_may_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    has_socket = (
        any("docker.sock" in volume for volume in service["volumes"])
        if ("volumes" in service)
        else False
    )
    assert has_socket == (name == "engine")
    assert ("ports" in service) == (name == "tls")
    assert ("user" in service) == (name == "engine")


def test_the_databases_network_leads_nowhere() -> None:
    assert COMPOSE["networks"]["data"]["internal"] is True
    assert SERVICES["engine"]["network_mode"] == "none"
    assert SERVICES["database"]["networks"] == ["data"]
    assert "data" not in SERVICES["tls"]["networks"] + SERVICES["proxy"]["networks"]


def test_every_image_has_a_recipe_and_a_name_of_its_own_by_variable() -> None:
    named = {service["image"] for service in SERVICES.values()}
    found = {re.fullmatch(r"\$\{SITE_(\w+)_IMAGE:-(.+)/(\w+):latest\}", one) for one in named}
    assert None not in found
    assert {(one[2], one[3]) for one in found if one} == {
        (recipes.REPOSITORY, part) for part in recipes.PARTS
    }
    for part in ("system", *recipes.PARTS):
        assert (recipes.HERE / part / "Dockerfile").is_file()


def test_the_scheduler_is_given_what_its_config_reads_and_no_secret_of_the_hub() -> None:
    given = set(SERVICES["scheduler"]["environment"])
    text = (DEPLOY / "compose" / "scheduler_config.py").read_text()
    text += (ROOT / "jupyterhub_gpuspawner" / "site_gpus.py").read_text()
    reads = set(re.findall(r'environment\.\w+\(\s*["\'](GPUS_\w+)', text))
    # by itself a constant, and two of a Swarm
    assert reads - {"GPUS_SERVICE_PORT", "GPUS_SPAWNER", "GPUS_AGENT_KEY_FILE"} <= given
    # of others: the service, and what it is told of the Hub
    others = {"DOCKER_HOST", "GPUS_SERVICE_TOKEN", "GPUS_HUB_TOKEN", "GPUS_HUB_API_URL"}
    assert given - reads == others | {"GPUS_PUBLIC_URL"}


def test_all_that_the_file_asks_for_is_in_the_example_or_has_a_default() -> None:
    text = (DEPLOY / "compose.yml").read_text()
    named = set(envfile.read(EXAMPLE))
    for name, rest in re.findall(r"\$\{([A-Z_]+)([^}]*)\}", text):
        assert name in named or rest.startswith(":-") or name == "COMPOSE_PROJECT_NAME", name
        if rest.startswith(":?") and name != "GPUS_PUBLIC_URL":
            assert name in envfile.SECRETS
    # a secret never has a default
    for name in envfile.SECRETS:
        assert f"${{{name}:-" not in text
    assert {name for name in named if name.startswith("SITE_")} <= set(
        re.findall(r"SITE_[A-Z_]+", text)
    )
    known = {*environment.SITE, *environment._OTHERS}
    assert {name for name in named if name.startswith("GPUS_")} <= known


def test_every_variable_of_the_file_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    texts = [(DEPLOY / "compose.yml").read_text(), EXAMPLE]
    named = set(re.findall(r"\b(?:SITE_[A-Z_]+[A-Z]|[A-Z_]+_PASSWORD)\b", "".join(texts)))
    # where the env file is: `up` says it
    assert named - set(re.findall(r"`([A-Z_]+)`", page)) == {"SITE_ENV_FILE"}


def test_a_gpu_is_the_schedulers_alone_and_only_to_look_at() -> None:
    more = yaml.safe_load((DEPLOY / "compose.gpu.yml").read_text())["services"]
    assert set(more) == {"scheduler"}
    (device,) = more["scheduler"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["utility"]}


# -- the env file --------------------------------------------------------------------------------


def test_a_new_env_file_has_every_secret_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "env"
    assert envfile.ensure(path, GPUS_PUBLIC_URL="https://hub.example.org")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = envfile.read(path.read_text())
    assert values["GPUS_PUBLIC_URL"] == "https://hub.example.org"
    secrets = [values[name] for name in envfile.SECRETS]
    assert len(set(secrets)) == len(secrets) and all(len(one) >= 16 for one in secrets)
    # a part of a URL, and of a line that a shell may read
    assert all(re.fullmatch("[0-9a-f]+", one) for one in secrets)
    assert len(values["GPUS_ADMIN_PASSWORD"]) >= 32
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_env_file_says_stays_and_a_missing_secret_is_added(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("# mine\nGPUS_PASSWORD='my own words'\nHUB_DB_PASSWORD=\nOTHER=\n# end")
    path.chmod(0o600)
    assert not envfile.ensure(path, GPUS_PUBLIC_URL="https://not.example.org")
    text = path.read_text()
    values = envfile.read(text)
    assert text.startswith("# mine\nGPUS_PASSWORD='my own words'\nHUB_DB_PASSWORD=")
    assert values["GPUS_PASSWORD"] == "my own words" and values["OTHER"] == ""
    assert "GPUS_PUBLIC_URL" not in values
    assert all(values[name] for name in envfile.SECRETS)
    assert not envfile.ensure(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.write_text("A=1"), "chmod 600"),
        (lambda path: path.mkdir(mode=0o700), "Is a directory"),
        (lambda path: (path.write_bytes(b"\xff"), path.chmod(0o600)), "decode"),
    ],
)
def test_an_env_file_that_is_no_good_is_one_line(tmp_path: Path, prepare: Any, words: str) -> None:
    path = tmp_path / "env"
    prepare(path)
    with pytest.raises(envfile.EnvFileError, match=words) as error:
        envfile.ensure(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_setting_that_the_example_does_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(envfile.EnvFileError, match="GPUS_PUBLIC_URLL"):
        envfile.ensure(tmp_path / "env", GPUS_PUBLIC_URLL="x")
    assert list(tmp_path.iterdir()) == []


# -- what the images are made of -----------------------------------------------------------------


def test_the_hub_image_has_the_config_and_what_the_package_needs(tmp_path: Path) -> None:
    digest = recipes.pack_source(tmp_path / "a.tar")
    assert recipes.pack_source(tmp_path / "b.tar") == digest
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = set(archive.getnames())
    assert {"jupyterhub_config.py", "deploy/compose/scheduler_config.py"} <= names
    assert "jupyterhub_gpuspawner/service/templates/gpus.html" in names
    assert not any("__pycache__" in name for name in names)
    needs = recipes.needs()
    project = (ROOT / "pyproject.toml").read_text()
    assert "psycopg[binary]>=3.1" in needs and "pyyaml>=6" in needs
    assert all(f'"{need}"' in project for need in needs)
    assert "jupyterhub-idle-culler" in " ".join(needs)
    assert not any(re.match(r"jupyterhub\W*[><=]|pytest|ruff", need) for need in needs)


def package(folder: Path, name: str, version: str = "1.0.0", *needs: str) -> Path:
    folder.mkdir(parents=True)
    facts = {"name": name, "version": version, "dependencies": dict.fromkeys(needs, "*")}
    (folder / "package.json").write_text(json.dumps(facts))
    (folder / "index.js").write_text(f"// {name} {version}")
    return folder


def node_modules(folder: Path) -> Path:
    top = folder / "node_modules"
    proxy = package(top / node_packages.PROXY, node_packages.PROXY, "5.0.0", "a", "@s/b")
    (proxy / "bin").mkdir()
    program = proxy / "bin" / node_packages.PROXY
    program.write_text("#!/usr/bin/env node\n")
    program.chmod(0o755)
    package(top / "a", "a", "1.0.0", "c")
    package(top / "@s/b", "@s/b", "2.0.0", "c")
    package(top / "c", "c", "1.0.0")
    # b has another c of its own; nobody asked for z
    package(top / "@s/b/node_modules/c", "c", "2.0.0")
    package(top / "z", "z")
    return proxy


def test_the_proxys_packages_are_those_that_it_needs_at_their_places(tmp_path: Path) -> None:
    found = node_packages.closure(node_modules(tmp_path))
    assert [(one.place, one.version) for one in found] == [
        ("@s/b", "2.0.0"),
        ("@s/b/node_modules/c", "2.0.0"),
        ("a", "1.0.0"),
        ("c", "1.0.0"),
        (node_packages.PROXY, "5.0.0"),
    ]
    out = io.BytesIO()
    node_packages.pack(found, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        names = archive.getnames()
        command = archive.getmember(f"node_modules/.bin/{node_packages.PROXY}")
    assert "node_modules/@s/b/node_modules/c/index.js" in names
    assert len(names) == len(set(names)) and not any("/z/" in name for name in names)
    assert command.linkname == f"../{node_packages.PROXY}/bin/{node_packages.PROXY}"


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    proxy = node_modules(tmp_path)
    (tmp_path / "node_modules" / "c" / "package.json").unlink()
    with pytest.raises(node_packages.NodeError, match="the package c is not installed"):
        node_packages.closure(proxy)


def test_the_proxy_is_found_by_its_program(tmp_path: Path) -> None:
    proxy = node_modules(tmp_path)
    commands = tmp_path / "node_modules" / ".bin"
    commands.mkdir()
    (commands / node_packages.PROXY).symlink_to(proxy / "bin" / node_packages.PROXY)
    assert node_packages.find(str(commands)) == proxy
    assert node_packages.find(str(tmp_path)) is None
