"""Options from any door give a profile of the config, or a text that a person can read."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.errors import RequestError
from jupyterhub_gpuspawner.profiles import (
    ResolvedProfile,
    options_from_form,
    parse_profiles,
    to_request,
)
from jupyterhub_gpuspawner.profiles.models import Overrides
from jupyterhub_gpuspawner.scheduler.models import GPURequest, Mode

GIB = 1024**3

PROFILES = parse_profiles(
    [
        {
            "display_name": "Small",
            "spawner_override": {"gpus": 1, "mem_limit": "8G", "environment": {"A": "1", "B": "1"}},
            "profile_options": {
                "gpus": {
                    "display_name": "GPUs",
                    "choices": {
                        "one": {"display_name": "1", "spawner_override": {"gpus": 1}},
                        "two": {"display_name": "2", "spawner_override": {"gpus": 2}},
                        "ten": {
                            "display_name": "10",
                            "allowed_groups": ["staff"],
                            "spawner_override": {"gpus": 10},
                        },
                    },
                },
                "image": {
                    "display_name": "Image",
                    "choices": {
                        "lab": {"display_name": "Lab"},
                        "torch": {
                            "display_name": "Torch",
                            "default": True,
                            "spawner_override": {"image": "torch:1", "environment": {"B": "2"}},
                        },
                    },
                    "unlisted_choice": {
                        "enabled": True,
                        "validation_regex": "lab/.*",
                        "validation_message": "Images of lab/ only",
                        "spawner_override": {
                            "image": "{value}",
                            "environment": {"FROM": "<{value}>"},
                        },
                    },
                },
            },
        },
        {"display_name": "Plain", "default": True, "spawner_override": {"cpu_limit": 2}},
        {"display_name": "Secret", "allowed_groups": ["staff"], "spawner_override": {"gpus": 8}},
        {
            "display_name": "Clash",
            "profile_options": {
                "limit": {
                    "display_name": "Limit",
                    "choices": {
                        "none": {"display_name": "None"},
                        "1G": {"display_name": "1G", "spawner_override": {"mem_limit": "1G"}},
                    },
                },
                "sure": {
                    "display_name": "Sure",
                    "choices": {
                        "none": {"display_name": "None"},
                        "2G": {"display_name": "2G", "spawner_override": {"mem_guarantee": "2G"}},
                    },
                },
            },
        },
    ]
)


def refusal(options, **who):
    with pytest.raises(RequestError) as error:
        PROFILES.resolve(options, **who)
    return error.value


@pytest.mark.parametrize("empty", [None, {}])
def test_no_options_mean_the_default_profile(empty):
    assert PROFILES.resolve(empty) == ResolvedProfile(
        slug="plain", display_name="Plain", cpu_limit=2.0
    )


def test_without_a_default_the_first_profile_and_the_first_choice_are_taken():
    profiles = parse_profiles([{"display_name": "A"}, {"display_name": "B"}])
    assert profiles.resolve(None).slug == "a"
    assert PROFILES.resolve({"profile": "small"}).options == (("gpus", "one"), ("image", "torch"))


def test_choices_change_the_profiles_settings_and_mappings_are_merged():
    resolved = PROFILES.resolve({"profile": "small", "gpus": "two"})
    assert (resolved.gpus, resolved.image, resolved.mem_limit) == (2, "torch:1", 8 * GIB)
    assert resolved.environment == {"A": "1", "B": "2"}


def test_a_text_of_ones_own_is_put_in_where_the_admin_wrote_value():
    resolved = PROFILES.resolve({"profile": "small", "image--unlisted-choice": "lab/x:1"})
    assert resolved.image == "lab/x:1"
    assert resolved.environment == {"A": "1", "B": "1", "FROM": "<lab/x:1>"}
    assert resolved.options == (("gpus", "one"), ("image--unlisted-choice", "lab/x:1"))


def test_a_text_of_ones_own_is_never_a_format_string():
    profiles = parse_profiles(
        [
            {
                "display_name": "A",
                "profile_options": {
                    "note": {
                        "display_name": "Note",
                        "unlisted_choice": {
                            "enabled": True,
                            "validation_regex": ".*",
                            "spawner_override": {"environment": {"NOTE": "{value}"}},
                        },
                    }
                },
            }
        ]
    )
    text = "{value.__class__} {0} {value}"
    resolved = profiles.resolve({"note--unlisted-choice": text})
    assert resolved.environment == {"NOTE": text}
    assert profiles.resolve(None).options == ()


CHOOSE = "please choose again."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (
                wrong,
                "The options must be a mapping of names to values, such as "
                '{"profile": "small"}; ' + CHOOSE,
            )
            for wrong in ([], ["a"], "small", "", 0, 1.5, True, False)
        ),
        ({"profile": None}, "The profile must be given by its name, as text."),
        ({"profile": ["small"]}, "The profile must be given by its name, as text."),
        ({"profile": "gone"}, 'Profile "gone" no longer exists; ' + CHOOSE),
        ({"profile": ""}, 'Profile "" no longer exists; ' + CHOOSE),
        ({"profile": "secret"}, 'Profile "secret" is not open to your groups.'),
        (
            {"profile": "small", "gpu": "two"},
            'Profile "small" has no option "gpu" (did you mean "gpus"?); ' + CHOOSE,
        ),
        ({"gpus": "two"}, 'Profile "plain" has no option "gpus"; ' + CHOOSE),
        (
            {"profile": "small", "spawner_override": {"privileged": True}},
            'Profile "small" has no option "spawner_override"; ' + CHOOSE,
        ),
        (
            {"profile": "small", "gpus": "three"},
            'Option "gpus" can\'t be "three"; it can be: one, two.',
        ),
        (
            {"profile": "small", "gpus": "ten"},
            'Option "gpus" can\'t be "ten"; it can be: one, two.',
        ),
        ({"profile": "small", "gpus": 2}, 'Option "gpus" must be given as text.'),
        ({"profile": "small", "gpus": None}, 'Option "gpus" must be given as text.'),
        (
            {"profile": "small", "gpus--unlisted-choice": "3"},
            'Option "gpus" takes only the listed choices.',
        ),
        (
            {"profile": "small", "image--unlisted-choice": 3},
            'Option "image" must be given as text.',
        ),
        (
            {"profile": "small", "image": "lab", "image--unlisted-choice": "lab/x"},
            'Option "image": give a choice or a value of your own, not both.',
        ),
        (
            {"profile": "small", "image--unlisted-choice": "evil/x"},
            'Option "image": "evil/x" is not accepted: Images of lab/ only',
        ),
        (
            {"profile": "small", "image--unlisted-choice": "lab/x\n"},
            'Option "image": "lab/x?" is not accepted: Images of lab/ only',
        ),
        (
            {"profile": "small", "image--unlisted-choice": "lab/ --privileged"},
            'Option "image": "lab/ --privileged" is not accepted: must be an image name, such as '
            "?lab.example/jupyter/base-notebook:latest?",
        ),
        (
            {"profile": "small", "image--unlisted-choice": "lab/" + "x" * 300},
            'Option "image": the value is longer than 256 characters.',
        ),
        (
            {"profile": "clash", "limit": "1G", "sure": "2G"},
            "These options do not fit together: mem_guarantee is above mem_limit. "
            "Please choose again.",
        ),
        (
            {str(n): "" for n in range(101)},
            "The options must be at most 100 named values; please choose again.",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_wrong_options_are_refused_with_a_text_for_people(options, message):
    assert refusal(options).user_message == message


def test_markup_and_long_texts_are_not_repeated():
    for slug in ("<img src=x onerror=alert(1)>", "x" * 10_000, "a\nb", "\ud800", "\u202egpj"):
        for options in ({"profile": slug}, {"profile": "small", slug: "1"}):
            message = refusal(options).user_message
            assert len(message) < 300
            assert not set(message) & set("<>&'\n\ud800\u202e")


def test_the_log_names_the_user_and_the_user_does_not_see_it():
    error = refusal({"profile": "gone"}, username="alice\n")
    assert str(error) == (
        "'alice\\n': options refused: Profile \"gone\" no longer exists; please choose again."
    )
    assert "alice" not in error.user_message


def test_a_token_that_was_pasted_is_not_in_the_log():
    token = "0123456789abcdef" * 2
    error = refusal({"profile": token}, username="alice")
    assert token in error.user_message
    assert token not in str(error)
    assert '"0123456789ab…"' in str(error)
    error = refusal({"profile": PROFILES.items[0].slug, token: "1"}, username="alice")
    assert f'Profile "{PROFILES.items[0].slug}" has no option "0123456789ab…"' in str(error)


def test_groups_open_profiles_and_choices():
    assert PROFILES.resolve({"profile": "secret"}, groups=["staff"]).gpus == 8
    assert PROFILES.resolve({"profile": "small", "gpus": "ten"}, groups=["staff"]).gpus == 10
    assert [p.slug for p in PROFILES.visible()] == ["small", "plain", "clash"]
    assert [p.slug for p in PROFILES.visible(["staff"])] == ["small", "plain", "secret", "clash"]


def test_a_hidden_default_gives_way_to_the_first_open_profile():
    profiles = parse_profiles(
        [
            {"display_name": "Staff", "default": True, "allowed_groups": ["staff"]},
            {"display_name": "All"},
        ]
    )
    assert profiles.resolve(None).slug == "all"
    assert profiles.resolve(None, groups=["staff"]).slug == "staff"


def test_who_may_use_no_profile_is_told_so():
    profiles = parse_profiles([{"display_name": "Staff", "allowed_groups": ["staff"]}])
    with pytest.raises(RequestError, match="No profile is open to you"):
        profiles.resolve(None, groups=["students"])


@pytest.mark.slow
def test_deep_and_large_values_are_refused_without_being_walked():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert "as text" in refusal({"profile": deep}).user_message
    assert "as text" in refusal({"profile": "small", "gpus": deep}).user_message
    assert "mapping" in refusal(deep).user_message


def test_every_setting_reaches_the_resolved_profile():
    assert set(Overrides.model_fields) <= set(ResolvedProfile.__dataclass_fields__)


#: a short alphabet: the tables of all of Unicode take Hypothesis seconds to load
TEXT = st.text(alphabet="abglot-_ 12/:<>{}\n\x00é\ud800", max_size=12)
NAMES = st.sampled_from(
    ["profile", "gpus", "image", "gpus--unlisted-choice", "image--unlisted-choice", "limit", "sure"]
)
VALUES = st.sampled_from(
    [
        "small",
        "plain",
        "secret",
        "clash",
        "one",
        "two",
        "ten",
        "lab",
        "torch",
        "lab/x:1",
        "unlisted-choice",
        "none",
        "1G",
        "2G",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner | VALUES, max_size=4)
    ),
    max_leaves=12,
)
#: options that are nearly right, which plain JSON seldom is
NEARLY = st.dictionaries(NAMES, VALUES | TEXT | st.none() | st.integers(), max_size=4)
GROUPS = st.sampled_from([(), ("staff",), ("students", "staff"), ("other",)])


def allowed_settings(groups):
    """(slug, gpus, image): all that the configuration above allows, written out by hand."""
    counts = (1, 2, 10) if "staff" in groups else (1, 2)
    allowed = {("small", n, image) for n in counts for image in (None, "torch:1")}
    allowed |= {("plain", 0, None), ("clash", 0, None)}
    return allowed | ({("secret", 8, None)} if "staff" in groups else set())


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(options=JSON | NEARLY, groups=GROUPS)
def test_any_json_gives_what_the_config_allows_or_a_request_error(options, groups):
    try:
        resolved = PROFILES.resolve(options, username="alice", groups=groups)
    except RequestError as error:
        assert 0 < len(error.user_message) < 400
        assert not set(error.user_message) & set("<>\n\x00\ud800")
        return
    image = resolved.image
    if image is not None and image.startswith("lab/"):
        assert image == options["image--unlisted-choice"]
        image = None
    assert (resolved.slug, resolved.gpus, image) in allowed_settings(groups)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(options=NEARLY, groups=GROUPS)
def test_what_was_resolved_resolves_to_itself_and_is_json(options, groups):
    try:
        resolved = PROFILES.resolve(options, groups=groups)
    except RequestError:
        return
    stored = json.loads(json.dumps(resolved.user_options))
    assert PROFILES.resolve(stored, groups=groups) == resolved


# -- the form's fields --------------------------------------------------------


def test_the_forms_fields_become_options_of_the_chosen_profile_only():
    formdata = {
        "profile": ["small"],
        "profile-option-small--gpus": ["two"],
        "profile-option-small--image": ["lab"],
        "profile-option-small--image--unlisted-choice": [""],
        "profile-option-clash--limit": ["1G"],
        "_xsrf": ["token"],
    }
    before = json.dumps(formdata)
    assert options_from_form(formdata) == {"profile": "small", "gpus": "two", "image": "lab"}
    assert json.dumps(formdata) == before


@pytest.mark.parametrize("marker", ["unlisted-choice", "unlisted_choice"])
def test_the_text_field_counts_where_the_list_says_other(marker):
    formdata = {
        "profile": ["small"],
        "profile-option-small--image": [marker],
        "profile-option-small--image--unlisted-choice": ["lab/x:1"],
    }
    options = options_from_form(formdata)
    assert options == {"profile": "small", "image--unlisted-choice": "lab/x:1"}
    assert PROFILES.resolve(options).image == "lab/x:1"


def test_an_empty_text_field_without_a_list_is_no_answer():
    formdata = {"profile": ["a"], "profile-option-a--note--unlisted-choice": [""]}
    assert options_from_form(formdata) == {"profile": "a"}


def test_a_link_may_use_plain_names():
    options = options_from_form({"profile": ["small"], "gpus": ["two"], "next": ["/x"]})
    assert options == {"profile": "small", "gpus": "two"}


@pytest.mark.parametrize(
    "values", [[], ["a", "b"], [b"small"], None, {"body": b"x"}, [{"filename": "x", "body": b""}]]
)
def test_uploads_and_repeated_fields_are_kept_as_wrong_and_then_refused(values):
    options = options_from_form({"profile": values})
    assert options == {"profile": None}
    assert "as text" in refusal(options).user_message


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        NAMES | TEXT | st.builds("profile-option-{}--{}".format, VALUES | TEXT, NAMES),
        st.lists(VALUES | TEXT | st.binary(max_size=3), max_size=2) | JSON,
        max_size=6,
    )
)
def test_any_form_becomes_options_that_can_be_stored_as_json(formdata):
    options = options_from_form(formdata)
    json.dumps(options)
    with contextlib.suppress(RequestError):
        PROFILES.resolve(options)


# -- what the scheduler is asked for -------------------------------------------


def test_a_request_carries_the_profiles_wishes():
    profiles = parse_profiles(
        [
            {
                "display_name": "A",
                "spawner_override": {
                    "gpus": 2,
                    "gpu_model": "*A100*",
                    "gpu_min_memory": "40G",
                    "gpu_sharing": "mig",
                    "length": "4h",
                    "cpu_limit": 4,
                    "mem_limit": "8G",
                },
            }
        ]
    )
    assert to_request(profiles.resolve(None)) == GPURequest(
        count=2,
        model="*A100*",
        min_memory=40 * GIB,
        sharing=Mode.MIG,
        length=14400.0,
        cpu=4.0,
        memory=8 * GIB,
    )


def test_a_request_without_gpu_has_no_wishes_about_gpus():
    profiles = parse_profiles(
        [{"display_name": "A", "spawner_override": {"gpu_model": "*A100*", "gpu_sharing": "mig"}}]
    )
    assert to_request(profiles.resolve(None)) == GPURequest()


def of_override(**words):
    return parse_profiles([{"display_name": "A", "spawner_override": words}])


def test_capability_machine_pool_and_names_reach_the_scheduler():
    profiles = of_override(gpu_min_capability="9.0", node="n1", pool="new", gpu_devices=["b", "a"])
    assert to_request(profiles.resolve(None)) == GPURequest(
        count=2, min_capability=(9, 0), node="n1", pool="new", devices=("a", "b")
    )


def test_without_a_gpu_only_the_machine_counts():
    profiles = of_override(gpus=0, gpu_min_capability="9.0", node="n1", pool="new")
    assert to_request(profiles.resolve(None)) == GPURequest(node="n1", pool="new")


def test_an_admin_may_type_the_names_of_gpus():
    question = {
        "display_name": "GPUs",
        "unlisted_choice": {
            "enabled": True,
            "validation_regex": "[A-Za-z0-9, -]+",
            "spawner_override": {"gpu_devices": "{value}"},
        },
    }
    profiles = parse_profiles([{"display_name": "A", "profile_options": {"which": question}}])
    resolved = profiles.resolve({"profile": "a", "which--unlisted-choice": "GPU-2,GPU-1"})
    assert (resolved.gpus, resolved.gpu_devices) == (2, ("GPU-1", "GPU-2"))
    assert profiles.resolve(resolved.user_options) == resolved
