"""The single-user image on a real engine: what a user gets, and what must not be in it."""

from __future__ import annotations

import json
import time

import pytest
from docker.errors import ContainerError

from deploy.quickstart import recipes
from tests.testbed.images import ensure_base

#: Makes a notebook, runs it, and exports it to HTML; prints the page.
EXPORT = """
cd /tmp && cat >a.ipynb <<'END'
{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {},
  "outputs": [], "source": "6 * 7"}], "metadata": {"kernelspec": {"name": "python3",
  "display_name": "Python 3", "language": "python"}}, "nbformat": 4, "nbformat_minor": 5}
END
jupyter nbconvert --to html --execute a.ipynb --stdout 2>/dev/null
"""

#: Talks to the server of this container: its kernels and its terminals, with the token "t".
CLIENT = """
import json, urllib.request
def ask(path, data=None):
    request = urllib.request.Request("http://127.0.0.1:8888" + path, data=data)
    request.add_header("Authorization", "token t")
    return json.load(urllib.request.urlopen(request, timeout=20))
ask("/api/kernels", b'{"name": "python3"}')
ask("/api/terminals", b"{}")
print(json.dumps({"terminals": len(ask("/api/terminals")),
                  "kernels": [k["name"] for k in ask("/api/kernels")],
                  "specs": sorted(ask("/api/kernelspecs")["kernelspecs"])}))
"""

#: A hub that answers every question of a starting server, then the launcher against it.
WITH_A_HUB = """
import http.server, json, os, subprocess, sys, threading, time, urllib.request
class Hub(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps({"version": sys.argv[1]}).encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", sys.argv[1])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *arguments): pass
hub = http.server.ThreadingHTTPServer(("127.0.0.1", 8081), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
api = "http://127.0.0.1:8081/hub/api"
environment = {"JUPYTERHUB_API_TOKEN": "t", "JUPYTERHUB_API_URL": api, "JUPYTERHUB_HOST": "",
  "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-u", "JUPYTERHUB_USER": "u", "JUPYTERHUB_BASE_URL": "/",
  "JUPYTERHUB_SERVICE_PREFIX": "/user/u/", "JUPYTERHUB_ACTIVITY_URL": api + "/users/u/activity",
  "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/u/oauth_callback",
  "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:8888/user/u/"}
log = open("/tmp/log", "w")
server = subprocess.Popen(["jupyterhub-singleuser"], env={**os.environ, **environment},
                          stdout=log, stderr=log)
end, status = time.monotonic() + 60, 0
while time.monotonic() < end and server.poll() is None:
    try:
        status = urllib.request.urlopen("http://127.0.0.1:8888/user/u/api", timeout=5).status
        break
    except OSError:
        time.sleep(0.05)
ticks = sum(map(int, open(f"/proc/{server.pid}/stat").read().rpartition(")")[2].split()[11:13]))
loaded = open(f"/proc/{server.pid}/maps").read()
print(json.dumps({"status": status, "cpu": ticks / os.sysconf("SC_CLK_TCK"),
                  "database_loaded": "sqlalchemy" in loaded, "log": open("/tmp/log").read()}))
"""


@pytest.fixture(scope="module")
def image(docker_client):
    """The image as ``./quickstart`` builds it, on the testbed's engine."""
    ensure_base(docker_client)
    return docker_client.images.get(recipes.ensure_singleuser(docker_client).id)


@pytest.fixture
def run(docker_client, image):
    """Run a command in a container of its own; returns what it prints."""

    def run(*command, **options):
        options = {"network_mode": "none", "remove": True} | options
        return docker_client.containers.run(image.id, list(command), **options).decode()

    return run


@pytest.fixture(scope="module")
def server(docker_client, image):
    """A server of its own (no hub), healthy by the image's own check."""
    command = ["start-notebook.sh", "--IdentityProvider.token=t"]
    container = docker_client.containers.run(image.id, command, detach=True, network_mode="none")
    end = time.monotonic() + 60
    while container.exec_run("healthcheck").exit_code:
        container.reload()
        assert container.status == "running" and time.monotonic() < end, container.logs().decode()
        time.sleep(0.1)
    yield container
    container.remove(force=True)


def test_the_second_build_is_skipped_and_leads_to_the_same_image(docker_client, image):
    again = recipes.ensure_singleuser(docker_client)
    assert (again.id, again.seconds) == (image.id, 0.0)


def test_labels_say_what_it_is_made_of(image):
    assert image.labels[recipes.SOURCE_LABEL] in recipes.SOURCES
    assert image.labels[recipes.VERSION_LABEL]
    assert len(image.labels["jupyterhub-gpuspawner.recipe"]) == 64


def test_the_image_grants_no_gpu_and_keeps_no_mirror_or_proxy(image):
    variables = {line.partition("=")[0] for line in image.attrs["Config"]["Env"]}
    assert variables == {
        "PATH", "CONDA_DIR", "LANG", "LC_ALL", "SHELL", "NB_USER", "NB_UID", "NB_GID", "HOME"
    }  # fmt: skip
    history = json.dumps(image.history())
    assert "PIP_INDEX_URL" not in history and "proxy" not in history


def test_the_user_is_not_root_and_owns_the_home(run):
    answer = run("bash", "-c", "id -u; id -g; stat -c %u:%g ~; echo ok >~/file && cat ~/file")
    assert answer.split() == ["1000", "100", "1000:100", "ok"]


def test_the_grammar_that_costs_two_seconds_is_gone_and_jsonschema_works(run):
    code = (
        "import importlib.util as u, jsonschema\n"
        "assert not u.find_spec('rfc3987_syntax') and not u.find_spec('lark')\n"
        "jsonschema.validate('a', {'type': 'string', 'format': 'iri'})\n"
        "try: jsonschema.validate(1, {'type': 'string'})\n"
        "except jsonschema.ValidationError: print('validates')\n"
    )
    assert run("python", "-c", code).strip() == "validates"


def test_everything_is_compiled_and_the_compiled_files_are_valid(run):
    code = (
        "import importlib.util as u, pathlib, struct, sysconfig\n"
        "bad = []\n"
        "for path in pathlib.Path(sysconfig.get_path('purelib')).rglob('*.py'):\n"
        "    if '/test' in str(path): continue\n"
        "    made = pathlib.Path(u.cache_from_source(str(path)))\n"
        "    if not made.exists(): bad.append(str(path)); continue\n"
        "    head = made.read_bytes()[:16]\n"
        "    stamp = struct.unpack('<I', head[8:12])[0]\n"
        "    if head[:4] != u.MAGIC_NUMBER or stamp != int(path.stat().st_mtime) & 0xFFFFFFFF:\n"
        "        bad.append(str(path))\n"
        "print(bad[:5], len(bad))\n"
    )
    # files that are templates of Python, or of another Python, can't be compiled
    count = int(run("python", "-c", code).split()[-1])
    assert count <= 5


def test_tini_is_the_first_process(server):
    # not "docker top": it needs ps on the engine's machine
    script = "cat /proc/1/comm; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    first, _, commands = server.exec_run(["sh", "-c", script]).output.decode().partition("\n")
    assert first == "tini"
    assert "jupyter" in commands


def test_terminals_kernels_and_kernelspecs_answer(server):
    answer = json.loads(server.exec_run(["python", "-c", CLIENT]).output)
    assert answer["specs"] == ["python3"]
    assert answer["kernels"] == ["python3"]
    assert answer["terminals"] == 1


def test_a_notebook_runs_and_is_exported(run):
    # the kernel talks to the exporter on loopback
    assert ">42<" in run("bash", "-c", EXPORT).replace("\n", "")


def test_the_quick_start_serves_without_the_hubs_database(run):
    from importlib.metadata import version

    answer = json.loads(run("python", "-c", WITH_A_HUB, version("jupyterhub")))
    assert answer["status"] == 200, answer["log"]
    assert not answer["database_loaded"], answer["log"]
    assert "plain start" not in answer["log"]
    # a machine at rest needs about 1 s; the limit is that of a busy one
    assert answer["cpu"] < 2.5


def test_the_plain_start_still_works(run):
    from importlib.metadata import version

    command = ("python", "-c", WITH_A_HUB, version("jupyterhub"))
    answer = json.loads(run(*command, environment={"GPUS_PLAIN_START": "1"}))
    assert answer["status"] == 200, answer["log"]
    assert answer["database_loaded"]


def test_modules_that_were_deferred_are_whole_when_they_are_used(run):
    code = (
        "import sys, gpus_singleuser as g\n"
        "g._defer('requests'); g._defer('IPython.paths', get_ipython_dir=g._get_ipython_dir)\n"
        "g._load_singleuser(); g._load_extension_manager()\n"
        "assert 'alembic' not in sys.modules and 'IPython' not in sys.modules\n"
        "import requests.exceptions, sqlalchemy, IPython, httpx\n"
        "from sqlalchemy.exc import OperationalError, SQLAlchemyError\n"
        "from IPython.paths import get_ipython_package_dir\n"
        "from jupyterhub.handlers.pages import HealthCheckHandler\n"
        "assert issubclass(OperationalError, SQLAlchemyError)\n"
        "assert 'IPython' in get_ipython_package_dir()\n"
        "assert httpx.AsyncClient.__module__.startswith('httpx')\n"
        "import jupyterhub.orm; assert jupyterhub.orm.User.__tablename__ == 'users'\n"
        "from jupyterlab.extensions.pypi import PyPIExtensionManager as P\n"
        "assert P()._httpx_client.get\n"
        "print('whole')\n"
    )
    assert run("python", "-c", code).strip().endswith("whole")


def test_as_root_the_name_ids_and_home_are_those_asked_for(run):
    wanted = {"NB_USER": "ada", "NB_UID": "1234", "NB_GID": "200", "CHOWN_HOME": "yes"}
    answer = run(
        "bash", "-c", "id -un; id -u; id -g; pwd; touch ~/x && echo ok",
        user="root", environment=wanted,
    )  # fmt: skip
    assert answer.split() == ["ada", "1234", "200", "/home/ada", "ok"]


def test_hooks_run_before_the_server(docker_client, image):
    hook = "printf 'export FROM_HOOK=yes\\n' >/usr/local/bin/before-notebook.d/10.sh"
    container = docker_client.containers.create(
        image.id, ["bash", "-c", "echo value=$FROM_HOOK"], user="root", network_mode="none",
        entrypoint=["bash", "-c", f'{hook}; exec start.sh "$@"', "-"],
    )  # fmt: skip
    try:
        container.start()
        assert container.wait(timeout=30)["StatusCode"] == 0
        assert "value=yes" in container.logs().decode()
    finally:
        container.remove(force=True)


def test_a_command_that_fails_gives_its_exit_code(run):
    with pytest.raises(ContainerError) as caught:
        run("bash", "-c", "exit 7")
    assert caught.value.exit_status == 7
