"""What takes long to import, in one place: :mod:`.app` imports it when the port answers.

The pages are not here: who waits for a GPU does not need them.
"""

from __future__ import annotations

from ..engine.pool import EnginePool
from . import api_internal
from .desk import Desk
from .metrics import Metrics
from .pace import Pace
from .requeue import HubAPI
from .runtime import Runtime, real_outside

__all__ = [
    "Desk",
    "EnginePool",
    "HubAPI",
    "Metrics",
    "Pace",
    "Runtime",
    "api_internal",
    "real_outside",
]
