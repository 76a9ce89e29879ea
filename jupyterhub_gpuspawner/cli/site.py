"""Where the site's Hub has its files, as the shipped configuration says it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from traitlets.config import Config

from ..service.options import GPUScheduler
from .command import Argument, CommandError

CONFIG = Argument(
    name="--config FILE",
    help="the scheduler's configuration, which setup(c) writes: scheduler.json in its state_dir. "
    "Default: gpus/scheduler.json in GPUS_STATE_DIR, or in var/",
)


def state_folder() -> Path:
    """The Hub's state, by GPUS_STATE_DIR."""
    return Path(os.environ.get("GPUS_STATE_DIR", "var"))


def options(arguments: argparse.Namespace) -> GPUScheduler:
    """The scheduler's options, as its own configuration file says them."""
    given = arguments.config
    path = Path(given) if given else state_folder() / "gpus" / "scheduler.json"
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8"))["GPUScheduler"])
    except FileNotFoundError:
        more = "" if given else "; name it with --config FILE"
        raise CommandError(f"{path}: there is no such file{more}") from None
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{path} is not a configuration that setup(c) has written") from None
    return GPUScheduler(config=Config({"GPUScheduler": values}))
