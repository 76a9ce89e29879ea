"""The image of a server, looked for and fetched before a GPU is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import docker.errors

from .docker_spec import image_command
from .engine import containers
from .engine.faults import lost
from .errors import ImageMissing

#: seconds a pull may take as long as Docker goes on to say something
LONGEST_PULL = 24 * 3600


async def have_image(spawner: Any) -> list[str] | None:
    """Have the spawner's image on the engine, as its ``pull_policy`` says.

    Returns the image's command; None = it is not known yet.

    Raises
    ------
    ImageMissing
        It is not there, and is not to be fetched or can't be.
    EngineError
        Docker does not do as asked, or does not answer.
    """
    try:
        return await _have_image(spawner, spawner.image, spawner.pull_policy.lower())
    except docker.errors.NotFound as error:
        raise lost(error) from error


async def have_others(spawner: Any, images: Iterable[str]) -> None:
    """Have further images on the engine, as :func:`have_image` does."""
    try:
        for image in dict.fromkeys(images):
            await _have_image(spawner, image, spawner.pull_policy.lower())
    except docker.errors.NotFound as error:
        raise lost(error) from error


async def _have_image(spawner: Any, image: str, policy: str) -> list[str] | None:
    if policy == "skip":
        return None
    command = await spawner.engine(image_command, image)
    if command is not None and policy != "always":
        return list(command)
    if policy == "never":
        raise ImageMissing(
            f"{spawner._log_name}: image {image} is not on the engine, and pull_policy is 'never'",
            f"The image {image} is not on this machine. Please tell an administrator.",
        )
    spawner.say(5, f"Fetching the image {image}")
    loop = asyncio.get_running_loop()

    def tell(line: str) -> None:
        loop.call_soon_threadsafe(spawner.say, 5, f"Fetching the image {image}: {line}")

    await spawner.pool.run(
        f"pull {image}",
        lambda client: containers.pull(client, image, tell),
        timeout=LONGEST_PULL,
    )
    return None
