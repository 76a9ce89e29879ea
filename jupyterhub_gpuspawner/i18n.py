"""What people read, in their language: gettext catalogues under ``locale/``.

A text is looked up by its English form, with ``{name}`` for what varies. A language is there when
``locale/LANGUAGE/LC_MESSAGES/gpus.po`` is; it is compiled when it is first needed. The scripts of
the pages have the same catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

#: the language that the texts in the code are in
ENGLISH = "en"
LOCALE = Path(__file__).parent / "locale"
DOMAIN = "gpus"
_SLOT = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """English, and all that have a catalogue, such as ``zh_CN``."""
    found = sorted(path.parents[1].name for path in LOCALE.glob(f"*/LC_MESSAGES/{DOMAIN}.po"))
    return (ENGLISH, *found)


class Words:
    """The texts of one language. ``catalogue``: English text -> translation, or plural forms."""

    def __init__(self, language: str, catalogue: dict[str, str | list[str]]) -> None:
        self.language = language
        self.catalogue = catalogue

    @property
    def tag(self) -> str:
        """The language as HTML has it: ``zh-CN``."""
        return self.language.replace("_", "-")

    def __call__(self, text: str, **values: object) -> str:
        """``text`` in this language; the English one where there is no translation."""
        found = self.catalogue.get(text, text)
        return fill(found if isinstance(found, str) else found[0], values)

    def many(self, one: str, many: str, number: float, **values: object) -> str:
        """The form for so many things; ``{n}`` is the number."""
        found = self.catalogue.get(one)
        # one or two forms, as the scripts of the pages have it
        forms = found if isinstance(found, list) else [one, many]
        return fill(forms[0 if number == 1 else -1], {"n": number, **values})


def fill(text: str, values: dict[str, object]) -> str:
    """Put values into a text. Never ``str.format``: it would read attributes of them."""
    return _SLOT.sub(lambda slot: str(values.get(slot[1], slot[0])), text)


@lru_cache(maxsize=16)
def words_of(language: str) -> Words:
    """The texts of a language that is in :func:`languages`; else English."""
    if language == ENGLISH or language not in languages():
        return Words(ENGLISH, {})
    # takes a while to import, and English needs nothing of it
    from babel.messages.pofile import read_po

    with open(LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po", "rb") as file:
        messages = read_po(file, locale=language, domain=DOMAIN)
    catalogue: dict[str, str | list[str]] = {}
    for message in messages:
        key: Any = message.id
        text: Any = message.string
        if not key or message.fuzzy:
            continue
        if isinstance(key, str):
            if text:
                catalogue[key] = text
        elif all(text):
            catalogue[key[0]] = list(text)
    return Words(language, catalogue)


def choose(accepted: str, setting: str = "") -> Words:
    """The texts for who sends this ``Accept-Language``; ``setting``: a site's own choice."""
    if setting:
        return words_of(setting)
    known = languages()
    for wanted in _preferred(accepted):
        for language in known:
            if language.casefold() == wanted:
                return words_of(language)
        for language in known:
            # zh, zh_Hans, zh_SG
            if language.partition("_")[0] == wanted.partition("_")[0]:
                return words_of(language)
    return words_of(ENGLISH)


def _preferred(accepted: str) -> Iterable[str]:
    """The languages of the header, the best first, such as ``zh_cn``."""
    found: list[tuple[float, str]] = []
    for part in accepted[:500].split(","):
        tag, _, more = part.strip().partition(";")
        quality = more.strip().removeprefix("q=")
        try:
            weight = float(quality) if more else 1.0
        except ValueError:
            continue
        if tag and weight > 0:
            found.append((-weight, tag.strip().casefold().replace("-", "_")))
    return [tag for _, tag in sorted(found, key=lambda one: one[0])]
