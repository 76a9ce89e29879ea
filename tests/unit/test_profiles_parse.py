"""A bad profile list is refused at start, in one line that says what to do."""

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.profiles import DEFAULT_PROFILE_LIST, parse_profiles
from jupyterhub_gpuspawner.profiles.models import slugify


def profile(**words):
    return {"display_name": "Small", **words}


def override(**words):
    return [profile(spawner_override=words)]


def option(**words):
    return [profile(profile_options={"size": {"display_name": "Size", **words}})]


def typed(**words):
    unlisted = {
        "enabled": True,
        "validation_regex": "[a-z]+",
        "spawner_override": {"image": "{value}"},
    }
    return option(unlisted_choice={**unlisted, **words})


CHOICE = {"display_name": "One"}

BAD = {
    "profile_list: must be a list, not dict": {},
    "profile_list: must be a list, not str": "small",
    "profile_list: is empty; give at least one profile": [],
    "profile_list: profile 1: 'small' must be a mapping, not str": ["small"],
    "profile_list: profile 1: display_name: is missing": [{}],
    'profile_list: profile "Small": display_name: is missing': [{"slug": "Small"}],
    "profile_list: profile 1: display_name: 7 must be text": [{"display_name": 7}],
    "profile_list: profile \"  \": display_name: ' ' must be 1 to 200 printable characters": [
        {"display_name": "  "}
    ],
    "profile_list: profile \"Small\": default: 'yes' must be True or False": [
        profile(default="yes")
    ],
    'profile_list: profile "Small": slug: "Small!" must be at most 63 of a-z, 0-9, and single '
    ". _ - between": [profile(slug="Small!")],
    'profile_list: profiles "Small" and "small" have the same slug "small"; give one of them '
    'another "slug"': [profile(), profile(display_name="small")],
    'profile_list: "A" and "B" are all marked default; keep one': [
        profile(display_name="A", default=True),
        profile(display_name="B", default=True),
    ],
    'profile_list: profile "Small": allowed_groups: must be a list of group names that is not '
    'empty, such as ["physics"]': [profile(allowed_groups=[])],
    'profile_list: profile "Small": give only one of "kubespawner_override" and '
    '"spawner_override"': [profile(spawner_override={}, kubespawner_override={})],
    # settings
    "profile_list: profile \"Small\": spawner_override.mem_limit: '8X' is not an amount of memory: "
    'use bytes or a number with K, M, G or T, such as "512M" or "8G"': override(mem_limit="8X"),
    'profile_list: profile "Small": spawner_override.gpus: -1 must be a whole number of GPUs '
    "between 0 and 1024": override(gpus=-1),
    'profile_list: profile "Small": spawner_override.gpus: True must be a whole number of GPUs '
    "between 0 and 1024": override(gpus=True),
    'profile_list: profile "Small": spawner_override.gpus: 1.5 must be a whole number of GPUs '
    "between 0 and 1024": override(gpus=1.5),
    "profile_list: profile \"Small\": spawner_override.gpu_sharing: 'half' must be one of "
    "exclusive, slots, mig": override(gpu_sharing="half"),
    'profile_list: profile "Small": spawner_override.cpu_limit: -0.5 must be 0 (no limit) or '
    "between 0.01 and 100000 processors": override(cpu_limit=-0.5),
    'profile_list: profile "Small": spawner_override.pids_limit: -1 must be a whole number between '
    "0 and 2147483647": override(pids_limit=-1),
    "profile_list: profile \"Small\": spawner_override.length: 'long' is not a length of time: use "
    'seconds or a number with s, m, h or d, such as "30m" or "4h"': override(length="long"),
    "profile_list: profile \"Small\": spawner_override.image: 'a b' must be an image name, such as "
    '"lab.example/jupyter/base-notebook:latest"': override(image="a b"),
    "profile_list: profile \"Small\": spawner_override.default_url: '//evil.example' must be a "
    'path that begins with one "/", such as "/lab"': override(default_url="//evil.example"),
    'profile_list: profile "Small": spawner_override.cmd: must be a command, such as '
    '["jupyterhub-singleuser"]': override(cmd=[]),
    'profile_list: profile "Small": spawner_override.ulimits: nofile must be a number, or '
    "[soft, hard] with soft <= hard (-1: no end)": override(ulimits={"nofile": [2, 1]}),
    'profile_list: profile "Small": spawner_override.environment: NVIDIA_VISIBLE_DEVICES is '
    "protected: only the scheduler decides which GPUs a server sees": override(
        environment={"NVIDIA_VISIBLE_DEVICES": "all"}
    ),
    'profile_list: profile "Small": spawner_override: mem_guarantee is above mem_limit': override(
        mem_limit="1G", mem_guarantee="2G"
    ),
    "profile_list: profile \"Small\": spawner_override.ulimits: 'nofiles' is not a ulimit; "
    "allowed: core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, "
    "rttime, sigpending, stack": override(ulimits={"nofiles": 1}),
    'profile_list: profile "Small": spawner_override.ulimits: must be a mapping, such as '
    '{"nofile": [1024, 4096]}': override(ulimits=[1]),
    "profile_list: profile \"Small\": spawner_override.mem_limit: '1M' must be 0 (no limit) or at "
    "least 6M, the least that Docker takes": override(mem_limit="1M"),
    'profile_list: profile "Small": spawner_override.environment: the value of A must be text': (
        override(environment={"A": 1})
    ),
    "profile_list: profile \"Small\": spawner_override.cpu_limit: 'two' must be a number of "
    "processors, such as 2 or 0.5": override(cpu_limit="two"),
    "profile_list: profile \"Small\": spawner_override.gpu_model: '' must be a pattern on the "
    'GPU\'s name, such as "*A100*"': override(gpu_model=""),
    'profile_list: profile "Small": spawner_override.gpu_min_capability: 8 must be a compute '
    'capability, such as "8.0"': override(gpu_min_capability=8),
    'profile_list: profile "Small": spawner_override: gpus is 1, and gpu_devices names 2': (
        override(gpus=1, gpu_devices=["a", "b"])
    ),
    'profile_list: profile "Small": spawner_override.gpu_devices: must be ids of GPUs, such as '
    '["GPU-…"], or text with commas between': override(gpu_devices=[]),
    "profile_list: profile \"Small\": spawner_override.node: '' must be a name of 1 to 255 "
    "printable characters": override(node=""),
    'profile_list: profile "Small": spawner_override.cmd: must hold only texts that are not '
    "empty": override(cmd=["a", ""]),
    f'profile_list: profile "Small": description: \'{"x" * 56}… must be at most 2000 printable '
    "characters": [profile(description="x" * 10_000)],
    'profile_list: profile "Small": spawner_override.gpus: a number of more than 60 digits must be '
    "a whole number of GPUs between 0 and 1024": override(gpus=10**5000),
    'profile_list: profile "Small": allowed_groups: must hold only group names': [
        profile(allowed_groups=["a", 1])
    ],
    # options
    'profile_list: profile "Small": profile_options.size: choices is empty: give at least one '
    "choice": option(),
    'profile_list: profile "Small": profile_options.size: choices: a and b are all marked default; '
    "keep one": option(
        choices={"a": {**CHOICE, "default": True}, "b": {**CHOICE, "default": True}}
    ),
    'profile_list: profile "Small": profile_options.size.choices.a.display_name: is missing': (
        option(choices={"a": {}})
    ),
    'profile_list: profile "Small": profile_options.size: choices: "unlisted-choice" can\'t be the '
    "key of a choice": option(choices={"unlisted-choice": CHOICE}),
    'profile_list: profile "Small": profile_options: "a--b" can\'t be the name of an option; use '
    "letters, digits, and single _ or - between": [
        profile(profile_options={"a--b": {"display_name": "A", "choices": {"x": CHOICE}}})
    ],
    'profile_list: profile "Small": profile_options: "profile" can\'t be the name of an option; '
    "use letters, digits, and single _ or - between": [
        profile(profile_options={"profile": {"display_name": "A", "choices": {"x": CHOICE}}})
    ],
    'profile_list: profile "Small": profile_options.size.choices.a: cpu_guarantee is above '
    "cpu_limit": [
        profile(
            spawner_override={"cpu_limit": 1},
            profile_options={
                "size": {
                    "display_name": "Size",
                    "choices": {"a": {**CHOICE, "spawner_override": {"cpu_guarantee": 2}}},
                }
            },
        )
    ],
    # texts of one's own
    'profile_list: profile "Small": profile_options.size.unlisted_choice.validation_regex: '
    "'[a-' is not a regular expression: unterminated character set at position 0": typed(
        validation_regex="[a-"
    ),
    'profile_list: profile "Small": profile_options.size.unlisted_choice: validation_regex is '
    "missing: without it any text would be allowed": typed(validation_regex=None),
    'profile_list: profile "Small": profile_options.size.unlisted_choice: spawner_override is '
    'missing: say what the text sets, such as {"image": "{value}"}': typed(spawner_override={}),
    'profile_list: profile "Small": '
    "profile_options.size.unlisted_choice.spawner_override.gpus: -1 must be "
    "a whole number of GPUs between 0 and 1024": typed(spawner_override={"gpus": -1}),
    'profile_list: profile "Small": '
    "profile_options.size.unlisted_choice.spawner_override.environment: "
    "CUDA_VISIBLE_DEVICES is protected: only the scheduler decides which GPUs a server sees": typed(
        spawner_override={"environment": {"CUDA_VISIBLE_DEVICES": "{value}"}}
    ),
}


@pytest.mark.parametrize(
    ("line", "profile_list"),
    BAD.items(),
    ids=lambda value: value[-60:] if isinstance(value, str) else "",
)
def test_a_bad_profile_list_is_refused_with_one_clear_line(line, profile_list):
    with pytest.raises(ConfigError) as refusal:
        parse_profiles(profile_list)
    assert str(refusal.value) == line


@pytest.mark.parametrize(
    ("profile_list", "start"),
    [
        (
            override(mem_limt="8G"),
            'spawner_override: unknown word "mem_limt" (did you mean "mem_limit"?); allowed:',
        ),
        (override(node_selector={}), 'spawner_override: unknown word "node_selector"; allowed:'),
        ([profile(descripton="x")], 'unknown word "descripton" (did you mean "description"?);'),
        (
            option(choice={"a": CHOICE}),
            'profile_options.size: unknown word "choice" (did you mean "choices"?); allowed:',
        ),
        (
            typed(spawner_override={"imgae": "{value}"}),
            "profile_options.size.unlisted_choice.spawner_override: "
            'unknown word "imgae" (did you mean "image"?);',
        ),
    ],
    ids=["setting", "kubernetes", "profile", "option", "unlisted"],
)
def test_an_unknown_word_is_refused_and_the_nearest_known_one_suggested(profile_list, start):
    with pytest.raises(ConfigError) as refusal:
        parse_profiles(profile_list)
    assert str(refusal.value).startswith(f'profile_list: profile "Small": {start}')


def test_several_problems_are_counted_after_the_first():
    with pytest.raises(ConfigError, match=r"gpus: -1 .* \(and 1 more problem\)$"):
        parse_profiles(override(gpus=-1, cpu_limit="many"))


def test_the_line_never_holds_an_environments_values_or_a_line_break():
    secret = {"environment": {"TOKEN": "s3cret", "BAD NAME\n": "s3cret"}}
    for words in (secret, {"environment": "TOKEN=s3cret"}):
        with pytest.raises(ConfigError) as refusal:
            parse_profiles(override(**words))
        assert "s3cret" not in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_all_settings_are_read_with_their_units():
    (read,) = parse_profiles(
        override(
            image="lab.example/jupyter/base-notebook@sha256:0123",
            gpus="2",
            gpu_model="*A100*",
            gpu_min_memory="40G",
            gpu_sharing="mig",
            gpu_memory_limit="10G",
            gpu_min_capability="8.0",
            gpu_devices="MIG-2, MIG-1",
            node="gpu-01",
            pool="teaching",
            cpu_limit=4,
            cpu_guarantee=0.5,
            mem_limit="8G",
            mem_guarantee="6M",
            swap=-1,
            pids_limit=500,
            shm_size="1G",
            ulimits={"nofile": 1024, "memlock": [-1, -1], "nproc": {"soft": 1, "hard": 2}},
            environment={"LANG": "C.UTF-8"},
            length="4h",
            cmd="start-notebook.sh",
            default_url="/lab/tree/{username}",
        )
    ).items
    assert read.spawner_override.settings() == {
        "image": "lab.example/jupyter/base-notebook@sha256:0123",
        "gpus": 2,
        "gpu_model": "*A100*",
        "gpu_min_memory": 40 * 1024**3,
        "gpu_sharing": "mig",
        "gpu_memory_limit": 10 * 1024**3,
        "gpu_min_capability": (8, 0),
        "gpu_devices": ("MIG-1", "MIG-2"),
        "node": "gpu-01",
        "pool": "teaching",
        "cpu_limit": 4.0,
        "cpu_guarantee": 0.5,
        "mem_limit": 8 * 1024**3,
        "mem_guarantee": 6 * 1024**2,
        "swap": -1,
        "pids_limit": 500,
        "shm_size": 1024**3,
        "ulimits": {"nofile": (1024, 1024), "memlock": (-1, -1), "nproc": (1, 2)},
        "environment": {"LANG": "C.UTF-8"},
        "length": 14400.0,
        "cmd": ("start-notebook.sh",),
        "default_url": "/lab/tree/{username}",
    }


def test_kubespawners_word_for_the_settings_means_the_same():
    ours = parse_profiles(override(gpus=1, mem_limit="8G"))
    theirs = parse_profiles([profile(kubespawner_override={"gpus": 1, "mem_limit": "8G"})])
    assert ours == theirs


def test_profiles_that_were_read_cannot_be_changed():
    (read,) = parse_profiles(override(gpus=1)).items
    with pytest.raises(ValueError, match="frozen"):
        read.spawner_override.gpus = 2


def test_a_mapping_of_the_admins_is_not_changed_by_reading_it():
    words = [profile(kubespawner_override={"gpus": "1"})]
    parse_profiles(words)
    assert words == [{"display_name": "Small", "kubespawner_override": {"gpus": "1"}}]


@pytest.mark.parametrize(
    ("display_name", "slug"),
    [
        ("Small GPU", "small-gpu"),
        ("  8 x A100 (80 GB)  ", "8-x-a100-80-gb"),
        ("Größe", "grosse"),
        ("大模型", "profile-25d7abe5"),
        ("x" * 100, "x" * 63),
    ],
)
def test_a_slug_is_made_from_the_display_name(display_name, slug):
    assert slugify(display_name) == slug
    assert parse_profiles([{"display_name": display_name}]).items[0].slug == slug


def test_the_list_of_a_hub_without_one_is_good_and_begins_with_a_gpu():
    profiles = parse_profiles(DEFAULT_PROFILE_LIST)
    assert [p.slug for p in profiles.items] == ["gpu", "cpu"]
    assert profiles.resolve(None).gpus == 1
    assert profiles.resolve({"profile": "cpu"}).gpus == 0


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "mem_limit": st.sampled_from([0, 1, "6M", "8G", -1, "many", True]),
        "mem_guarantee": st.sampled_from([0, 1, "6M", "1G", None]),
        "swap": st.sampled_from([0, -1, "-1", "1G", True]),
        "cpu_limit": st.sampled_from([0, 0.001, 0.01, 2, "0.5", float("nan")]),
        "pids_limit": st.sampled_from([0, 1, -1, "100"]),
        "shm_size": st.sampled_from([0, 1, "1G"]),
        "ulimits": st.dictionaries(
            st.sampled_from(["nofile", "core", "nofiles"]),
            st.sampled_from([0, -1, [1, 2], [2, 1], [-1, 5], [5, -1], "5", {"soft": 1, "hard": 1}]),
        ),
    },
)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jupyterhub_gpuspawner.engine.limits") is None,
    reason="engine.limits is not there",
)
@given(LIMITS)
def test_the_engine_takes_every_limit_that_a_profile_may_have(words):
    from jupyterhub_gpuspawner.engine import limits

    try:
        resolved = parse_profiles(override(**words)).resolve(None)
    except ConfigError:
        return
    names = ["mem_limit", "mem_guarantee", "cpu_limit", "pids_limit", "shm_size", "ulimits"]
    names += ["swap"] if resolved.mem_limit else []
    values = {name: getattr(resolved, name) for name in names}
    limits.parse_limits({name: value for name, value in values.items() if value is not None})


@pytest.mark.parametrize("name", ["NVIDIA_X", "CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY"])
def test_a_profile_may_not_set_what_chooses_gpus(name):
    with pytest.raises(ConfigError, match=name):
        parse_profiles([{"display_name": "x", "spawner_override": {"environment": {name: "1"}}}])
