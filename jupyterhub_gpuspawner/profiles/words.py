"""What all parts of a profile share: unknown words are refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


def nearest(word: object, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)``, or nothing where no known word is close."""
    close = difflib.get_close_matches(str(word)[:100], list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


class Strict(BaseModel):
    """Frozen, with unknown words refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    #: other words that are accepted, and the field each one means
    aliases: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known_words_only(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError(f"must be a mapping, not {type(data).__name__}")
        words: dict[str, Any] = {}
        for word, value in data.items():
            field = cls.aliases.get(word, word) if isinstance(word, str) else word
            if field not in cls.model_fields:
                known = [*cls.model_fields, *cls.aliases]
                raise ValueError(
                    f'unknown word "{str(word)[:60]}"{nearest(word, known)}; '
                    f"allowed: {', '.join(known)}"
                )
            if field in words:
                raise ValueError(f'give only one of "{word}" and "{field}"')
            words[field] = value
        return words
