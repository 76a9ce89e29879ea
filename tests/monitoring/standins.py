"""What a site has beside us and these tests can't run, as far as Prometheus sees it.

dcgm-exporter needs real GPUs: it stands here with made-up load on the devices that are held.
cAdvisor is in no Debian package: its names are here with Docker's own figures of the containers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jupyterhub_gpuspawner.engine import labels


@contextmanager
def exporter(lines: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Serve ``lines()`` at ``/metrics``; the host and port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = "".join(f"{line}\n" for line in lines()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def dcgm(devices: Iterable[str]) -> Iterator[str]:
    """dcgm-exporter's words for GPUs that work hard."""
    for number, device in enumerate(sorted(devices)):
        who = f'{{gpu="{number}",UUID="{device}",device="nvidia{number}",modelName="any"}}'
        yield f"DCGM_FI_DEV_GPU_UTIL{who} 87"
        yield f"DCGM_FI_DEV_GPU_TEMP{who} 61"
        yield f"DCGM_FI_DEV_FB_USED{who} 1024"


def cadvisor(client: Any) -> Iterator[str]:
    """cAdvisor's words for all containers of an engine, with the labels that it makes of theirs."""
    for container in client.containers.list():
        stats = container.stats(stream=False, one_shot=True)
        words = {"id": f"/docker/{container.id}", "name": container.name, "cpu": "total"}
        for label in (labels.KIND, labels.LEASE, labels.HUB_USERNAME):
            if label in container.labels:
                name = "".join(c if c.isalnum() else "_" for c in label)
                words[f"container_label_{name}"] = container.labels[label]
        who = "{" + ",".join(f'{name}="{value}"' for name, value in words.items()) + "}"
        memory, processor = stats["memory_stats"], stats["cpu_stats"]["cpu_usage"]
        yield f"container_memory_working_set_bytes{who} {memory.get('usage', 0)}"
        yield f"container_spec_memory_limit_bytes{who} {memory.get('limit', 0)}"
        yield f"container_cpu_usage_seconds_total{who} {processor['total_usage'] / 1e9}"
        yield f"container_start_time_seconds{who} 1"
