"""How the doctor comes by its facts: files, databases and configurations that are really there."""

from __future__ import annotations

import gc
import json
import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.doctor import (
    gather_config,
    gather_engine,
    gather_machine,
    gather_store,
)
from jupyterhub_gpuspawner.doctor.facts import Certificate, Database
from jupyterhub_gpuspawner.doctor.finding import Unknown
from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.store import Ledger

# real files and databases, and the shipped configuration
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SPEC: dict[str, Any] = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "containerEdits": {"mounts": [{"hostPath": "/gone/libcuda.so.1", "containerPath": "/l"}]},
    "devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}}],
}
CONFIG = """\
from jupyterhub_gpuspawner.hub import setup
c = get_config()
c.JupyterHub.spawner_class = "gpu-docker"
c.GPUDockerSpawner.image = "lab/base:1"
c.GPUDockerSpawner.volumes = {"/srv/{username}": "/a", "/": "/b", "/not/there": "/c", "v": "/d"}
c.GPUDockerSpawner.profile_list = [
    {"display_name": "A", "slug": "a", "spawner_override": {"gpus": 1, "image": "lab/torch:1"},
     "profile_options": {"v": {"display_name": "V", "choices": {
         "x": {"display_name": "X", "default": True, "spawner_override": {"image": "lab/tf:1"}}}}}},
]
c.GPUScheduler.state_dir = "STATE"
setup(c)
"""


def test_a_cdi_file_is_read_with_the_paths_that_it_wants(tmp_path: Path) -> None:
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "good.json").write_text(json.dumps(SPEC))
    (folder / "torn.json").write_text("{")
    (folder / "odd.yaml").write_text("devices: 7")
    (folder / "notes.txt").write_text("{")
    there, specs = gather_machine.cdi([str(folder), str(tmp_path / "none")])
    assert there == {str(folder): True, str(tmp_path / "none"): False}
    assert isinstance(specs, dict)
    good, odd, torn = (specs[str(folder / n)] for n in ("good.json", "odd.yaml", "torn.json"))
    assert (good.names, good.missing) == (("nvidia.com/gpu=a",), ("/gone/libcuda.so.1",))
    assert odd.error == "it has no list of devices"
    assert "Expecting" in torn.error
    assert len(specs) == 3


def pair(folder: Path, name: str, days: int) -> tuple[str, str]:
    """A certificate that ends in so many days, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / f"{name}.crt", folder / f"{name}.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(cert), str(private)


def test_a_certificate_is_read_with_its_key(tmp_path: Path) -> None:
    old, other = pair(tmp_path, "old", -3), pair(tmp_path, "other", 30)
    found = gather_config.certificate(*old)
    assert isinstance(found, Certificate)
    assert (round(found.days), found.fits_key) == (-3, True)
    mixed = gather_config.certificate(other[0], old[1])
    assert isinstance(mixed, Certificate)
    assert (round(mixed.days), mixed.fits_key) == (30, False)
    assert gather_config.certificate("", "") is None
    assert isinstance(gather_config.certificate(str(tmp_path / "x"), "y"), Unknown)


def test_a_ledger_is_asked_and_stays_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    assert gather_store.ledger(url) == Database(name=f"{tmp_path}/ledger.sqlite")
    assert not (tmp_path / "ledger.sqlite").exists()
    with Ledger.open(url) as ledger:
        # while the scheduler has it
        found = gather_store.ledger(url)
        assert isinstance(found, Database)
        assert found.ledger == ledger.id
    assert found.revision == found.wanted != ""
    (tmp_path / "text.sqlite").write_text("no database, and long enough to look like something")
    torn = gather_store.ledger(f"sqlite:///{tmp_path}/text.sqlite")
    assert isinstance(torn, Database)
    assert "not a database" in torn.error
    away = gather_store.ledger("postgresql://me:secret@127.0.0.1:1/gpus")
    assert isinstance(away, Database)
    assert away.error
    assert "secret" not in f"{away.name} {away.error}"


def test_a_hubs_database_of_another_version_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('99a28a4418e1')")
    database.close()
    found = gather_store.hub(f"sqlite:///{path}")
    assert isinstance(found, Database)
    assert found.revision == "99a28a4418e1"
    assert len(found.wanted) == 12
    assert found.wanted != found.revision


def test_a_configuration_is_run_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "hub.py"
    path.write_text(CONFIG.replace("STATE", str(tmp_path / "state")))
    facts = gather_config.facts(gather_config.load(path))
    assert not (tmp_path / "state").exists()
    assert [one["name"] for one in facts["config"]["JupyterHub"]["services"]] == ["gpus"]
    assert set(gather_config.images(facts["spawner"])) == {"lab/base:1", "lab/torch:1", "lab/tf:1"}
    assert gather_config.bind_sources(facts["spawner"]) == {"/": True, "/not/there": False}
    assert facts["options"].state_path == tmp_path / "state"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c = get_config(\n", "SyntaxError"),
        ("raise SystemExit('GPUS_PORT is 7: no')\n", "GPUS_PORT is 7: no"),
        ("import nowhere\n", "ModuleNotFoundError"),
        (CONFIG.replace("image =", "imgae ="), "did you mean image?"),
    ],
)
def test_a_configuration_that_fails_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "hub.py"
    path.write_text(text.replace("STATE", str(tmp_path / "state")))
    with pytest.raises(ConfigError) as caught:
        gather_config.load(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_proxies_for_containers_are_read(tmp_path: Path) -> None:
    assert gather_config.docker_proxies(tmp_path) == {}
    (tmp_path / ".docker").mkdir()
    file = tmp_path / ".docker" / "config.json"
    file.write_text('{"proxies": {"default": {"httpProxy": "http://p"}}}')
    assert gather_config.docker_proxies(tmp_path) == {"httpProxy": "http://p"}
    file.write_text("{")
    assert isinstance(gather_config.docker_proxies(tmp_path), Unknown)


def test_this_machine_answers() -> None:
    (disk,) = gather_machine.disks(["/", "/not/there"]).values()
    assert disk.total >= disk.free > 0
    assert disk.kind
    assert gather_machine.modes([Path("/not/there")]) == {"/not/there": None}
    assert isinstance(gather_machine.clock_set(), bool | Unknown)
    mtus = gather_machine.mtus()
    assert isinstance(mtus, dict)
    assert mtus["lo"] > 1500
    assert gather_machine.said(["no-such-program"]) is None
    assert isinstance(gather_machine.said(["false"]), Unknown)
    taken = gather_machine.listening("127.0.0.1", 0)
    assert not isinstance(taken, Unknown | None)
    again = gather_machine.listening("127.0.0.1", taken.getsockname()[1])
    taken.close()
    assert again is None
    assert isinstance(gather_machine.listening("192.0.2.77", 80), Unknown)


def test_the_engines_clock_is_compared() -> None:
    info = {"SystemTime": "2026-11-22T11:52:11.676449241Z"}
    now = datetime(2026, 11, 22, 11, 52, 1, tzinfo=timezone.utc).timestamp()
    assert gather_engine.clock(info, now) == pytest.approx(10.5)
    assert isinstance(gather_engine.clock({}, now), Unknown)


# the SDK leaves its socket open where its first call fails
@pytest.mark.filterwarnings("ignore:.*unclosed.*socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_the_rest_is_still_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jupyterhub_config.py").write_text(
        CONFIG.replace("STATE", str(tmp_path / "state")).replace(
            "setup(c)\n", "setup(c)\nc.JupyterHub.cleanup_servers = True\n"
        )
    )
    assert main(["doctor", "--engine", f"unix://{tmp_path}/none.sock", "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    checks = {one["check"]: one for one in said["findings"]}
    assert {"hub.cleanup", "hub.address", "volume.folder"} <= set(checks)
    blind = checks["unknown.info"]
    assert "no answer from Docker" in blind["what"]
    assert "engine.default-runtime" in blind["what"]
    gc.collect()


@pytest.mark.filterwarnings("ignore:.*unclosed.*socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wrong_variable_of_the_shipped_configuration_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GPUS_PORT", "many")
    config = str(ROOT / "jupyterhub_config.py")
    socket = f"unix://{tmp_path}/none.sock"
    assert main(["doctor", "--engine", socket, "--hub-config", config]) == 3
    said = capsys.readouterr().out
    assert said.startswith("error: hub.config: GPUS_PORT")
    gc.collect()


def test_the_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--list"]) == 0
    assert "engine.default-runtime" in capsys.readouterr().out
    assert main(["doctor", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) >= 60
