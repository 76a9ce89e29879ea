"""The spawner's options, checked when the Hub starts.

The Hub makes a spawner only when a user logs in: a wrong value would be a traceback for that
user, and a misspelt limit only a warning. So :func:`check_spawner` makes one at the start.
"""

from __future__ import annotations

import difflib
from typing import Any

from traitlets import HasTraits, TraitError
from traitlets.config import Config, Configurable

from .dockerspawner import GPUDockerSpawner
from .errors import ConfigError, GPUSpawnerError
from .kinds import odd_number, one_line
from .spawner import GPUSpawnerMixin
from .swarmspawner import GPUSwarmSpawner

_SWARM = GPUSwarmSpawner.__module__
_PACKAGE = __name__.rpartition(".")[0]


def check_spawner(c: Any) -> None:
    """Try every option of the spawner's sections in ``c``. ConfigError: one line, by name."""
    cls = spawner_class(c)
    for kind in cls.mro():
        section = kind.__name__
        if not issubclass(kind, Configurable) or section not in c:
            continue
        ours = kind.__module__.startswith(_PACKAGE)
        known = kind.class_trait_names(config=True) if ours else cls.class_trait_names(config=True)
        for name, value in c[section].items():
            if name in known:
                _try(cls, section, name, value)
                odd = odd_number(cls.class_traits()[name], value) if ours else ""
                if odd:
                    raise ConfigError(f"c.{section}.{name}: {odd}")
            elif ours:
                raise _unknown(section, name, known)


def spawner_class(c: Any) -> type[GPUSpawnerMixin]:
    """The spawner of ours that the config asks for, by class, path or entry point."""
    chosen = c.JupyterHub.get("spawner_class")
    if isinstance(chosen, type) and issubclass(chosen, GPUSpawnerMixin):
        return chosen
    if isinstance(chosen, str) and chosen in ("gpu-swarm", f"{_SWARM}.GPUSwarmSpawner"):
        return GPUSwarmSpawner
    return GPUDockerSpawner


def _try(cls: type[HasTraits], section: str, name: str, value: Any) -> None:
    """Give the value, and nothing else, to a spawner as the Hub would."""
    trait = cls.class_traits()[name]
    try:
        spawner = cls(config=Config({section: {name: value}}))
        # a value that equals the default of the class is not checked by what is above
        trait._validate(spawner, getattr(spawner, name))
    except (TypeError, ValueError, OverflowError):
        # the Hub's own sizes raise these for what is neither number nor text
        wrong = one_line(f"{value!r} is not {trait.info()}")
        raise ConfigError(f"c.{section}.{name}: {wrong}") from None
    except (TraitError, GPUSpawnerError) as error:
        raise ConfigError(f"c.{section}.{name}: {one_line(error)}") from None


def _unknown(section: str, name: str, known: list[str]) -> ConfigError:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else "see docs/reference/options.md"
    return ConfigError(f"c.{section}.{name}: there is no such option; {hint}")
