"""Commands of how-tos, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.doctor.finding import FOUND

ROOT = Path(__file__).parents[2]
RUN = re.compile(r"<!-- run by a test -->\n```bash\n(.*?)```", re.DOTALL)


@pytest.fixture
def page(engine, tmp_path):
    """Runs the lines of a page in an empty folder: exit code and output of each."""
    program = tmp_path / "jupyterhub-gpuspawner"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jupyterhub_gpuspawner.cli "$@"\n')
    program.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith("GPUS_")}
    env |= {"DOCKER_HOST": engine.base_url, "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{tmp_path}{os.pathsep}{env['PATH']}"

    def run(name):
        (block,) = RUN.findall((ROOT / "docs" / "howto" / f"{name}.md").read_text())
        done = [
            subprocess.run(["bash", "-euc", line], cwd=tmp_path, env=env, capture_output=True)
            for line in block.splitlines()
        ]
        return [(one.returncode, one.stdout.decode(), one.stderr.decode()) for one in done]

    return run


def test_homes_are_listed_as_the_page_says(page):
    (code, _, said), (json_code, listed, json_said) = page("volumes")
    assert (code, json_code) == (0, 0), said + json_said
    assert isinstance(json.loads(listed), list)


def test_an_image_is_looked_at_as_the_page_says(page, docker_client, stub_image):
    docker_client.images.get("debian:bookworm-slim").tag("lab/torch", "1")
    try:
        (code, text, said), (json_code, listed, _) = page("images")
    finally:
        docker_client.images.remove("lab/torch:1", noprune=True)
    # it is no image for servers, and is told so
    assert (code, json_code) == (FOUND, FOUND), text + said
    findings = json.loads(listed)["findings"]
    assert findings and all(one["what"] in text for one in findings)


def test_the_doctor_names_its_checks_as_the_page_says(page):
    ((code, listed, said),) = page("doctor")
    assert code == 0, said
    assert len(listed.splitlines()) > 30
