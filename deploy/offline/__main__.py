"""``python -m deploy.offline FOLDER [--site-images] [--image NAME ...]``: make a bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import requests
from docker.errors import DockerException

from deploy.compose import recipes
from deploy.node_packages import NodeError
from deploy.offline import bundle
from deploy.quickstart.progress import ticking
from deploy.quickstart.recipes import SINGLEUSER

#: what compose.yml and the shipped config name
SITE_IMAGES = (
    *(f"{recipes.REPOSITORY}/{part}:latest" for part in recipes.PARTS),
    f"{SINGLEUSER}:latest",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.offline")
    parser.add_argument("folder")
    parser.add_argument("--site-images", action="store_true")
    parser.add_argument("--image", action="append", default=[])
    arguments = parser.parse_args()
    names = [*(SITE_IMAGES if arguments.site_images else ()), *arguments.image]
    try:
        with ticking():
            bundle.make(Path(arguments.folder), names)
    except (
        *(bundle.BundleError, NodeError),
        *(DockerException, requests.RequestException, OSError),
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
