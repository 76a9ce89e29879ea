"""A user's own environment is a kernel of the next server that has the same home."""

from __future__ import annotations

import json
import uuid

import docker

#: as a user does it in a terminal; no network is needed
MAKE = """
set -e
python -m venv --system-site-packages --without-pip ~/.conda/envs/Mine
~/.conda/envs/Mine/bin/python -m ipykernel install --prefix ~/.conda/envs/Mine
# without a Python, and without ipykernel: no kernels
mkdir -p ~/envs/empty
python -m venv --without-pip ~/envs/bare
"""

#: starts a server, asks for its kernels, starts one, and says which program that is
CLIENT = """
import json, os, subprocess, sys, time, urllib.request
log = open("/tmp/log", "w")
words = ["jupyter", "lab", "--no-browser", "--ServerApp.token=t"]
server = subprocess.Popen(words, stdout=log, stderr=log)
def ask(path, data=None):
    request = urllib.request.Request("http://127.0.0.1:8888" + path, data=data)
    request.add_header("Authorization", "token t")
    return json.load(urllib.request.urlopen(request, timeout=20))
def programs():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = open(f"/proc/{pid}/cmdline").read().split(chr(0))
        except OSError:
            continue
        if line[1:3] == ["-m", "ipykernel_launcher"]:
            found.append(line[0])
    return found
end = time.monotonic() + 120
specs = None
while specs is None and time.monotonic() < end and server.poll() is None:
    try:
        specs = ask("/api/kernelspecs")["kernelspecs"]
    except OSError:
        time.sleep(0.1)
if specs is None:
    sys.exit(open("/tmp/log").read())
ask("/api/kernels", b'{"name": "home-mine"}')
while not programs() and time.monotonic() < end:
    time.sleep(0.05)
shown = {name: spec["spec"]["display_name"] for name, spec in specs.items()}
print(json.dumps({"kernels": shown, "programs": programs()}))
server.terminate()
"""


def test_an_environment_in_the_home_is_a_kernel_after_a_restart(
    docker_client: docker.DockerClient, singleuser_image: str
) -> None:
    home = docker_client.volumes.create(f"home-{uuid.uuid4().hex[:8]}")
    options = {
        "volumes": {home.name: {"bind": "/home/jovyan"}},
        "network_mode": "none",
        "remove": True,
    }
    try:
        docker_client.containers.run(singleuser_image, ["bash", "-c", MAKE], **options)
        out = docker_client.containers.run(singleuser_image, ["python", "-c", CLIENT], **options)
    finally:
        home.remove()
    said = json.loads(out.decode().splitlines()[-1])
    assert said["kernels"] == {"python3": "Python 3 (ipykernel)", "home-mine": "Mine (home)"}
    assert said["programs"] == ["/home/jovyan/.conda/envs/Mine/bin/python"]
