"""Texts in the reader's language: which one, and that none is missing."""

from __future__ import annotations

import re

import pytest

from docs import catalogues
from jupyterhub_gpuspawner import i18n

NASTY = "{0.__class__}"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("zh-CN", "zh_CN"),
        ("zh-Hans-CN,zh;q=0.9,en;q=0.8", "zh_CN"),
        ("zh;q=0.5,en;q=0.2", "zh_CN"),
        ("en;q=0.2,zh;q=0.5", "zh_CN"),
        ("fr,tlh;q=0.9", "en"),
        ("zh;q=0", "en"),
        ("zh;q=x, ;;, en", "en"),
        ("," * 10_000, "en"),
    ],
)
def test_the_browsers_first_choice_that_is_there_is_taken(accepted: str, language: str) -> None:
    assert i18n.choose(accepted).language == language


def test_a_site_may_have_one_language_for_all() -> None:
    assert i18n.choose("en", "zh_CN").tag == "zh-CN"
    assert i18n.choose("zh", "en").language == "en"


def test_values_are_put_in_and_never_read_as_formats() -> None:
    english, chinese = i18n.words_of("en"), i18n.words_of("zh_CN")
    assert english("{free} of {all} free", free=1, all=2) == "1 of 2 free"
    assert chinese("{free} of {all} free", free=1, all=2).startswith("空闲 1 块")
    assert english("waits, position {n}", n=NASTY) == f"waits, position {NASTY}"
    assert english("{unknown}") == "{unknown}"


@pytest.mark.parametrize(("n", "text"), [(0, "0 GPUs"), (1, "1 GPU"), (2, "2 GPUs")])
def test_one_thing_and_many_things_have_their_forms(n: int, text: str) -> None:
    assert i18n.words_of("en").many("{n} GPU", "{n} GPUs", n) == text
    assert i18n.words_of("zh_CN").many("{n} GPU", "{n} GPUs", n) == f"{n} 块 GPU"


@pytest.mark.parametrize("language", [one for one in i18n.languages() if one != i18n.ENGLISH])
def test_every_text_of_pages_and_scripts_is_translated(language: str) -> None:
    catalogue = catalogues.renewed(language)
    assert catalogues.missing(catalogue) == []
    assert catalogues.path_of(language).read_bytes() == catalogues.text_of(catalogue)


def test_no_text_of_a_script_hides_inside_of_another() -> None:
    hidden = re.compile(r"\$\{[^}]*\btn?\(")  # what reads the texts out does not look there
    scripts = sorted(catalogues.PACKAGE.rglob("*.js"))
    assert scripts and [one.name for one in scripts if hidden.search(one.read_text())] == []


@pytest.mark.parametrize("language", [one for one in i18n.languages() if one != i18n.ENGLISH])
def test_a_translation_has_the_same_slots_as_its_text(language: str) -> None:
    for text, translation in i18n.words_of(language).catalogue.items():
        forms = [translation] if isinstance(translation, str) else translation
        for form in forms:
            assert set(i18n._SLOT.findall(form)) == set(i18n._SLOT.findall(text)), text
