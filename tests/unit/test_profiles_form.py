"""The form shows what may be chosen and what is free, sends it back, and escapes everything."""

import re

import pytest
from bs4 import BeautifulSoup

from jupyterhub_gpuspawner.profiles import (
    Availability,
    options_from_form,
    parse_profiles,
    render_form,
)

GIB = 1024**3
EVIL = "<script>alert('x')</script>&\"'"

PROFILES = parse_profiles(
    [
        {
            "display_name": "One",
            "description": "One GPU for you",
            "spawner_override": {
                "gpus": 1,
                "cpu_limit": 4,
                "mem_limit": "16G",
                "image": "torch:1",
                "length": "4h",
            },
            "profile_options": {
                "gpus": {
                    "display_name": "How many GPUs",
                    "choices": {
                        "one": {"display_name": "1"},
                        "four": {"display_name": "4", "spawner_override": {"gpus": 4}},
                        "nine": {
                            "display_name": "9",
                            "allowed_groups": ["staff"],
                            "spawner_override": {"gpus": 9},
                        },
                    },
                },
                "image": {
                    "display_name": "Image",
                    "choices": {"torch": {"display_name": "Torch"}},
                    "unlisted_choice": {
                        "enabled": True,
                        "display_name": "Image name",
                        "validation_regex": "lab/.*",
                        "validation_message": "Images of lab/ only",
                        "spawner_override": {"image": "{value}"},
                    },
                },
            },
        },
        {
            "display_name": "Pair",
            "default": True,
            "spawner_override": {"gpus": 2, "gpu_model": "*A100*"},
        },
        {"display_name": "Big memory", "spawner_override": {"gpus": 1, "gpu_min_memory": "70G"}},
        {"display_name": "None", "spawner_override": {"gpus": 0}},
        {"display_name": "Staff", "allowed_groups": ["staff"], "spawner_override": {"gpus": 8}},
    ]
)
SOME = Availability(
    free={"NVIDIA A100-SXM4-80GB": (1, 4), "NVIDIA L40S": (2, 2)},
    memory={"NVIDIA A100-SXM4-80GB": 80 * GIB, "NVIDIA L40S": 48 * GIB},
)


def form(availability=SOME, profiles=PROFILES, **kwargs):
    return BeautifulSoup(render_form(profiles, availability=availability, **kwargs), "html.parser")


def card(page, slug):
    return page.find("input", {"name": "profile", "value": slug}).find_parent(class_="card")


def words(element):
    return re.sub(r"\s+", " ", element.get_text(" ")).strip()


def facts(element):
    return {dt.get_text(): dt.find_next("dd").get_text() for dt in element.find_all("dt")}


def submit(page):
    """What a browser without JavaScript sends: every field that has a name."""
    data = {}
    for field in page.find_all(["input", "select"]):
        if field.name == "select":
            chosen = field.find("option", selected=True) or field.find("option")
            data[field["name"]] = [chosen["value"]]
        elif field.get("type") != "radio" or field.has_attr("checked"):
            data[field["name"]] = [field["value"]]
    return data


@pytest.mark.slow
def test_each_open_profile_is_shown_and_the_default_is_chosen():
    page = form()
    slugs = [radio["value"] for radio in page.find_all("input", {"type": "radio"})]
    assert slugs == ["one", "pair", "big-memory", "none"]
    assert [r["value"] for r in page.select("input[type=radio][checked]")] == ["pair"]


def test_a_profile_of_another_group_is_hidden_with_its_choices():
    assert "Staff" not in form().get_text()
    assert form().find("option", value="nine") is None
    shown = form(groups=["staff"])
    assert card(shown, "staff") is not None
    assert shown.find("option", value="nine") is not None


def test_a_card_shows_what_a_server_of_the_profile_gets():
    one = card(form(), "one")
    assert "One GPU for you" in words(one)
    assert facts(one) == {
        "GPUs": "1",
        "CPUs": "4",
        "Memory": "16 GiB",
        "Length": "4 h",
        "Image": "torch:1",
    }
    assert facts(card(form(), "pair")) == {"GPUs": "2", "Model": "A100"}


def test_what_a_profile_does_not_say_is_shown_from_the_spawners_defaults():
    page = form(defaults={"image": "base:1", "mem_limit": 2 * GIB, "cpu_limit": None})
    assert facts(card(page, "none")) == {"GPUs": "none", "Memory": "2 GiB", "Image": "base:1"}
    assert facts(card(page, "one"))["Image"] == "torch:1"


def test_an_image_that_all_profiles_share_is_not_shown():
    two = parse_profiles(
        [{"display_name": name, "spawner_override": {"gpus": 1}} for name in ("one", "two")]
    )
    page = form(profiles=two, defaults={"image": "base:1"})
    assert facts(card(page, "one")) == facts(card(page, "two")) == {"GPUs": "1"}


def test_the_page_says_how_many_gpus_of_each_model_are_free():
    items = [words(item) for item in form().find_all("li")]
    assert items == ["NVIDIA A100-SXM4-80GB 1 of 4", "NVIDIA L40S 2 of 2"]
    assert "nobody waits" in words(form())


@pytest.mark.parametrize(
    ("slug", "badge"),
    [
        ("one", "3 of 6 free now"),
        ("pair", "1 of 4 free now: your server would wait"),
        ("big-memory", "1 of 4 free now"),
        ("none", "does not wait for a GPU"),
    ],
)
def test_each_card_says_what_is_free_of_its_own_kind(slug, badge):
    assert words(card(form(), slug).find(class_="badge")) == badge


def test_who_would_stand_behind_others_sees_how_many():
    page = form(Availability(free={"A100": (1, 4)}, waiting=3))
    assert words(card(page, "one").find(class_="badge")) == "1 of 4 free now, 3 waiting"
    assert "3 requests wait" in words(page)


@pytest.mark.parametrize(
    ("free", "badge"),
    [
        ({"A100": (1, 1)}, "cannot start: only 1 of this kind here"),
        ({"L40S": (1, 1)}, "cannot start: no GPU of this kind here"),
        ({}, "cannot start: no GPU of this kind here"),
    ],
)
def test_a_profile_that_no_machine_here_can_serve_says_so(free, badge):
    page = form(Availability(free=free))
    assert words(card(page, "pair").find(class_="badge")) == badge


def test_choices_that_change_the_gpus_say_what_is_free_for_each():
    options = [words(o) for o in card(form(), "one").find_all("select")[0].find_all("option")]
    assert options == ["1 (3 of 6 free now)", "4 (3 of 6 free now: your server would wait)"]


def test_a_silent_scheduler_is_not_shown_as_no_gpu_free():
    page = form(None)
    assert "The scheduler does not answer right now." in words(page)
    assert "of 4" not in words(page)
    assert words(card(page, "one").find(class_="badge")) == "not known what is free"
    assert len(page.find_all("input", {"type": "radio"})) == 4


def test_simulated_gpus_are_called_so_in_the_list_and_on_each_card_with_a_gpu():
    page = form(Availability(free={"A100": (4, 4)}, simulated=True))
    badges = [b for b in page.find_all(class_="badge") if words(b) == "SIMULATED"]
    assert len(badges) == 1 + 3
    assert "SIMULATED" not in words(card(page, "none"))
    assert "SIMULATED" not in words(form())


def test_the_form_sends_back_what_it_shows():
    assert options_from_form(submit(form())) == {"profile": "pair"}
    last = {"profile": "one", "gpus": "four", "image--unlisted-choice": "lab/x:1"}
    assert options_from_form(submit(form(selected=last))) == last
    last = {"profile": "one", "gpus": "four", "image": "torch"}
    assert options_from_form(submit(form(selected=last))) == last


@pytest.mark.parametrize(
    "selected", [{"profile": "gone"}, {"profile": "staff"}, ["x"], "x", {"gpus": 3}, {EVIL: EVIL}]
)
def test_old_or_broken_options_show_the_default(selected):
    assert options_from_form(submit(form(selected=selected))) == {"profile": "pair"}


def test_every_field_has_a_label_and_every_id_is_used_once():
    page = form(groups=["staff"])
    ids = [element["id"] for element in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    for field in page.find_all(["input", "select"]):
        assert words(page.find("label", {"for": field["id"]}))
    for element in page.find_all(attrs={"aria-describedby": True}):
        assert element["aria-describedby"] in ids


def test_the_form_works_without_javascript():
    assert form().find("script") is None


def test_every_text_is_escaped():
    profiles = parse_profiles(
        [
            {
                "display_name": EVIL,
                "slug": "evil",
                "description": EVIL,
                "spawner_override": {"gpus": 1, "gpu_model": EVIL},
                "profile_options": {
                    "image": {
                        "display_name": EVIL,
                        "choices": {EVIL: {"display_name": EVIL}},
                        "unlisted_choice": {
                            "enabled": True,
                            "display_name": EVIL,
                            "display_name_in_choices": EVIL,
                            "validation_regex": ".*",
                            "validation_message": EVIL,
                            "spawner_override": {"environment": {"X": "{value}"}},
                        },
                    }
                },
            }
        ]
    )
    html = render_form(
        profiles,
        availability=Availability(free={EVIL: (1, 1)}),
        selected={"image--unlisted-choice": EVIL},
        defaults={"image": EVIL},
    )
    assert "<script" not in html
    page = BeautifulSoup(html, "html.parser")
    assert page.find("input", {"type": "text"})["value"] == EVIL
    assert page.find("option")["value"] == EVIL
    assert html.count("alert(") == html.count(
        "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;"
    )


def test_the_form_is_never_empty():
    profiles = parse_profiles([{"display_name": "Staff", "allowed_groups": ["staff"]}])
    for availability in (None, SOME, Availability()):
        page = form(availability, profiles)
        assert "No profile is open to you. Please ask an administrator." in words(page)
        assert page.find("input") is None


def test_a_profile_whose_defaults_disagree_says_so_and_the_others_can_be_chosen():
    part = {"display_name": "x"}
    profiles = parse_profiles(
        [
            {
                "display_name": "Clash",
                "profile_options": {
                    "a": {**part, "choices": {"x": {**part, "spawner_override": {"cpu_limit": 1}}}},
                    "b": {
                        **part,
                        "choices": {"x": {**part, "spawner_override": {"cpu_guarantee": 2}}},
                    },
                },
            },
            {"display_name": "Fine"},
        ]
    )
    page = form(SOME, profiles)
    assert "cpu_guarantee is above cpu_limit" in words(card(page, "clash"))
    assert card(page, "fine") is not None


# -- what the service says ------------------------------------------------------

DEVICES = [
    {"id": "GPU-1", "model": "A100", "memory": 80 * GIB, "simulated": False, "state": "free"},
    {"id": "GPU-2", "model": "A100", "memory": 80 * GIB, "simulated": False, "state": "leased"},
    {"id": "GPU-3", "model": "L40S", "memory": 48 * GIB, "simulated": False, "state": "leased"},
]


def test_the_services_summary_becomes_free_and_total_by_model():
    summary = {"version": "1", "devices": DEVICES, "free": {"A100": 1}, "queue": 2}
    assert Availability.from_summary(summary) == Availability(
        free={"A100": (1, 2), "L40S": (0, 1)},
        waiting=2,
        memory={"A100": 80 * GIB, "L40S": 48 * GIB},
        devices=tuple(DEVICES),
    )


@pytest.mark.parametrize(
    "summary",
    [
        *(None, [], "x", {}),
        {"devices": 3, "free": {}, "queue": 0},
        {"devices": [{}], "free": {}, "queue": 0},
        {"devices": [], "free": {}, "queue": "many"},
        {"devices": [], "free": 1, "queue": 0},
    ],
)
def test_a_summary_of_another_shape_means_that_nothing_is_known(summary):
    assert Availability.from_summary(summary) is None


# -- what else a profile may ask for ----------------------------------------------

ROWS = tuple(
    {
        "id": f"GPU-{n}",
        "model": "A100",
        "memory": 80 * GIB,
        "simulated": False,
        "state": "free" if n % 2 else "busy",
        "node": f"n{n // 3}",
        "pools": ["new"] if n // 3 else [],
        "capability": [8, n] if n else None,
    }
    for n in range(6)
)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({}, "3 of 6 free now"),
        ({"gpu_min_capability": "8.3"}, "2 of 3 free now"),
        ({"node": "n0"}, "1 of 3 free now"),
        ({"pool": "new", "gpu_min_capability": "8.4"}, "1 of 2 free now"),
        ({"gpu_devices": ["GPU-2"]}, "0 of 1 free now: your server would wait"),
        ({"gpu_model": "h100"}, "cannot start: no GPU of this kind here"),
        ({"pool": "old"}, "cannot start: no GPU of this kind here"),
        ({"gpu_min_memory": "81G"}, "cannot start: no GPU of this kind here"),
    ],
)
def test_the_outlook_counts_the_gpus_that_would_do(words, text):
    gpus = {} if "gpu_devices" in words else {"gpus": 1}
    profiles = parse_profiles([{"display_name": "A", "spawner_override": {**gpus, **words}}])
    summary = {"devices": ROWS, "free": {"A100": 3}, "queue": 0}
    assert text in render_form(profiles, availability=Availability.from_summary(summary))


def test_the_form_names_machine_and_capability():
    words = {"gpus": 1, "gpu_min_capability": "8.0", "pool": "new"}
    profiles = parse_profiles([{"display_name": "A", "spawner_override": words}])
    page = render_form(profiles, availability=None)
    assert "at least 8.0" in page
    assert "one of new" in page
