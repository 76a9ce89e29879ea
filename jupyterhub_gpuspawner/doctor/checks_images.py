"""The images of the configuration: there, and good. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts
from .finding import Level
from .image_checks import judge
from .registry import Found, check, error, warning


@check("image.there", "images", "spawner")
def there(facts: Facts) -> Iterator[Found]:
    """Every image of the configuration is on the engine, or is pulled."""
    policy = str(getattr(facts.spawner, "pull_policy", "ifnotpresent")).lower()
    for name, image in facts.images.items():
        if image is None and policy in ("never", "skip"):
            yield error(
                f"the image {name} is not on the engine, and pull_policy is {policy!r}",
                "Its servers can't start.",
                f"docker pull {name}, or c.GPUDockerSpawner.pull_policy = 'ifnotpresent'",
                about=name,
            )
        elif image is None:
            yield warning(
                f"the image {name} is not on the engine",
                "The first user waits for the pull, or is refused where no registry has it.",
                f"docker pull {name}, or build it",
                about=name,
            )


@check("image", "images")
def good(facts: Facts) -> Iterator[Found]:
    """Nothing about the images slows or endangers a start."""
    for name, image in facts.images.items():
        for one in judge(image) if image is not None else ():
            yield Found(
                what=f"{one.check.removeprefix('image.')}: {one.what}",
                why=one.why,
                fix=one.fix,
                about=name,
                level=one.level,
            )


@check("image.tag", "images", "spawner")
def tag(facts: Facts) -> Iterator[Found]:
    """Images of a registry have a version."""
    for name in facts.images:
        last = name.rpartition("/")[2]
        foreign = not name.startswith("jupyterhub-gpuspawner/")
        if foreign and (":" not in last or last.endswith(":latest")) and "@" not in last:
            yield Found(
                what=f"the image {name} has no version",
                why="Each machine has another one, and tomorrow's may differ from today's.",
                fix=f"name one: {name.removesuffix(':latest')}:2026-11",
                about=name,
                level=Level.WARNING,
            )
