#!/usr/bin/python3
"""A stand-in for jupyterhub-singleuser, on the standard library alone.

It answers on <prefix>api as the Hub expects, tells on <prefix>facts what it sees from inside, and
reports its activity. Misbehaves on request, by environment: STUB_DIE=<exit code> ends at once,
STUB_EXIT_AFTER=<seconds> ends later with STUB_EXIT_CODE (default 0), STUB_SLOW=<seconds> listens
late, STUB_EAT=<MiB> allocates memory once it serves, STUB_IGNORE_TERM=1 ignores SIGTERM.
GET <prefix>eat?<MiB> allocates on request, GET <prefix>exit?<code> ends. It has one kernel, which
GET <prefix>kernel?<state> makes busy or idle; STUB_NO_JUPYTER=1 has none of Jupyter's API.
"""

import datetime
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ENV = os.environ
PREFIX = ENV.get("JUPYTERHUB_SERVICE_PREFIX", "/")
PORT = urlsplit(ENV.get("JUPYTERHUB_SERVICE_URL", "")).port or 8888
STARTED = datetime.datetime.now(datetime.timezone.utc).isoformat()
KERNEL = {"id": "1", "execution_state": "idle", "last_activity": STARTED}
HELD: list = []  # memory that stays allocated


def end(code, text):
    print(text, file=sys.stderr, flush=True)
    os._exit(int(code))


def eat(mib):
    for _ in range(int(mib)):
        HELD.append(b"x" * (1 << 20))


def facts():
    return {
        "gpus": sorted(os.listdir("/run/gpus")) if os.path.isdir("/run/gpus") else [],
        "nvidia": sorted(name for name in os.listdir("/dev") if name.startswith("nvidia")),
        "visible": ENV.get("NVIDIA_VISIBLE_DEVICES"),
        "user": ENV.get("JUPYTERHUB_USER"),
        "server": ENV.get("JUPYTERHUB_SERVER_NAME"),
        "home": sorted(os.listdir(os.path.expanduser("~"))),
        "held_mib": len(HELD),
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == PREFIX + "eat":
            eat(query)
        elif path == PREFIX + "exit":
            end(query or 0, "stub: asked to end")
        elif path == PREFIX + "kernel":
            now = datetime.datetime.now(datetime.timezone.utc).isoformat()
            KERNEL.update(execution_state=query, last_activity=now)
        body = {"version": "stub"} if path == PREFIX + "api" else facts()
        if path.startswith(PREFIX + "api/") and not ENV.get("STUB_NO_JUPYTER"):
            body = {"status": {"started": STARTED}, "kernels": [KERNEL], "terminals": []}[
                path[len(PREFIX + "api/") :]
            ]
        data = json.dumps(body).encode()
        self.send_response(200 if path.startswith(PREFIX) else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if ENV.get("STUB_HUB_VERSION"):
            self.send_header("X-JupyterHub-Version", ENV["STUB_HUB_VERSION"])
        self.end_headers()
        self.wfile.write(data)


def report_activity():
    if not ENV.get("JUPYTERHUB_ACTIVITY_URL"):
        return
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    name = ENV.get("JUPYTERHUB_SERVER_NAME", "")
    request = urllib.request.Request(
        ENV["JUPYTERHUB_ACTIVITY_URL"],
        data=json.dumps({"servers": {name: {"last_activity": now}}, "last_activity": now}).encode(),
        headers={"Authorization": "token " + ENV.get("JUPYTERHUB_API_TOKEN", "")},
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except OSError as error:
        print(f"stub: activity not reported: {error}", file=sys.stderr, flush=True)


def later():
    report_activity()
    eat(ENV.get("STUB_EAT", 0))
    if "STUB_EXIT_AFTER" in ENV:
        time.sleep(float(ENV["STUB_EXIT_AFTER"]))
        end(ENV.get("STUB_EXIT_CODE", 0), "stub: ends as told")


def main():
    # Process 1 has no default action for SIGTERM: without a handler each stop would take 10 s.
    ignored = signal.SIG_IGN if ENV.get("STUB_IGNORE_TERM") else lambda *_: os._exit(0)
    signal.signal(signal.SIGTERM, ignored)
    if "STUB_DIE" in ENV:
        end(ENV["STUB_DIE"], "stub: dies at once, as told")
    time.sleep(float(ENV.get("STUB_SLOW", 0)))
    server = ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    print(f"stub: serves {PREFIX} on port {PORT}", flush=True)
    threading.Thread(target=later, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
