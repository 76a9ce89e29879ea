"""What takes long to import, in one place: :mod:`.app` imports it when the port answers."""

from __future__ import annotations

from . import api_internal, pages
from .desk import Desk
from .requeue import HubAPI
from .runtime import Runtime

__all__ = ["Desk", "HubAPI", "Runtime", "api_internal", "pages"]
