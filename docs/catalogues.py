"""Keeps the translations complete: ``python docs/catalogues.py [--check]``.

Writes into each ``jupyterhub_gpuspawner/locale/LANGUAGE/LC_MESSAGES/gpus.po`` the texts that
templates, scripts and code have now: new ones without a translation, and without those that are
not used any more. ``--check`` writes nothing and ends with 1 where something is missing.

A new language is a new folder with an empty ``gpus.po``; run this, and translate.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from jupyterhub_gpuspawner.i18n import DOMAIN, ENGLISH, LOCALE, languages
from jupyterhub_gpuspawner.scheduler.models import LeaseState, NodeState
from jupyterhub_gpuspawner.service.words import REASONS

PACKAGE = LOCALE.parent
#: how a text is marked, by the kind of file
MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "html": ("jinja2.ext:babel_extract", {"_": None, "many": (1, 2)}),
    "js": ("javascript", {"t": None, "tn": (1, 2)}),
    "py": ("python", {"_": None, "words": None, "N_": None, "many": (1, 2)}),
}


def texts() -> Iterator[tuple[str | tuple[str, str], str]]:
    """(text, or its singular and plural; the file that has it), of the whole package."""
    for ending, (method, marks) in MARKS.items():
        for path in sorted(PACKAGE.rglob(f"*.{ending}")):
            name, content = str(path.relative_to(PACKAGE)), path.read_bytes()
            if ending == "py" and b"i18n" not in content:
                continue  # it has no texts for people, and there are many
            found = extract(_method(method), io.BytesIO(content), keywords=marks)
            for _line, text, _comments, _context in found:
                yield text, name
    for sentence in REASONS.values():
        yield sentence, "service/words.py"
    for state in (*LeaseState, *NodeState):
        yield state.value, "scheduler/models.py"


def _method(name: str) -> Any:
    if ":" not in name:
        return name
    from jinja2.ext import babel_extract

    return babel_extract


def path_of(language: str) -> Path:
    """The catalogue's file."""
    return LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def renewed(language: str) -> Catalog:
    """The catalogue with the texts of now and the translations that there are."""
    with path_of(language).open("rb") as file:
        old = read_po(file, locale=language, domain=DOMAIN)
    new = Catalog(locale=language, domain=DOMAIN, fuzzy=False, header_comment="")
    for text, name in texts():
        known = old.get(text if isinstance(text, str) else text[0])
        same = known is not None and known.id == text
        new.add(text, known.string if same and known is not None else None, [(name, 1)])
    return new


def missing(catalogue: Catalog) -> list[str]:
    """Texts without a translation."""
    return [str(message.id) for message in catalogue if message.id and not _done(message.string)]


def _done(translation: Any) -> bool:
    if not translation or isinstance(translation, str):
        return bool(translation)
    return all(translation)


def text_of(catalogue: Catalog) -> bytes:
    """The file's content."""
    file = io.BytesIO()
    write_po(file, catalogue, width=0, omit_header=True, include_lineno=False, sort_output=True)
    head = b'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
    forms = f'"Plural-Forms: {catalogue.plural_forms}\\n"\n\n'.encode()
    return head + forms + file.getvalue().strip() + b"\n"


def main() -> int:
    """Write or check all catalogues."""
    failed = 0
    for language in languages():
        if language == ENGLISH:
            continue
        catalogue = renewed(language)
        fresh, path = text_of(catalogue), path_of(language)
        if "--check" not in sys.argv:
            path.write_bytes(fresh)
        elif path.read_bytes() != fresh:
            failed = 1
            sys.stderr.write(f"{path}: out of date; run python docs/catalogues.py\n")
        for text in missing(catalogue):
            failed = 1
            sys.stderr.write(f"{language}: not translated: {text}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
