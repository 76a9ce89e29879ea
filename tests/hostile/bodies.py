"""What somebody who means no good sends as options of a spawn."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

#: the ways in
DOORS = ("post", "named", "put", "patch", "stored", "form", "query")
#: slugs of the profiles, those that are not open included, and wrong ones
SLUGS = ("plain", "gpu", "choice", "big", "Plain", "plain ", "", "bigg", "../big", "0", "null")
#: words of this and of other software that must not mean anything here
WORDS = (
    "image", "extra_host_config", "extra_create_kwargs", "mem_limit", "mem_guarantee", "cpu_limit",
    "cmd", "args", "environment", "env", "volumes", "mounts", "binds", "network_name", "privileged",
    "user", "gpus", "devices", "device_requests", "runtime", "home_path", "drop_capabilities",
    "profile_list", "spawner_override", "kubespawner_override", "allowed_groups", "groups", "admin",
    "scheduler_url", "token_file", "hub_name", "default_url", "notebook_dir", "lease", "id",
    "__proto__", "constructor", "prototype", "__class__", "__init__", "__dict__", "toString",
    "size", "word", "size--unlisted-choice", "word--unlisted-choice", "display_name", "name",
    "profile--unlisted-choice", "user_options", "server_name", "remove",
)  # fmt: skip
NASTY = (
    "\x00", "a\x00b", "\n", "a\r\nb", "\u202e", "\ufeff", "<img src=x onerror=alert(1)>", "${HOME}",
    "{{7*7}}", "{username}", "{", "}", "%s%s%n", "../../etc/passwd", "' OR 1=1 --", "\U0001f4a9",
    "e\u0301", "\u0130", "NVIDIA_VISIBLE_DEVICES=all", "x" * 300, "x" * 20_000,
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Case:
    """One thing to send."""

    door: str
    #: JSON as it is sent, or fields of a form
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()
    #: the value that the body stands for, where it is known
    value: Any = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"<{self.door} {(self.body or self.fields)!r:.200}>"


texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=20),
    # lone halves of pairs, which JSON can say
    st.text(alphabet=st.characters(categories=["Cs", "Cc", "Lu", "Zs"]), max_size=5),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    st.sampled_from(SLUGS),
)
keys = st.one_of(st.sampled_from(WORDS), st.just("profile"), texts)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
#: nearly right: a profile that may be open, and something beside it
near = st.builds(
    lambda slug, more: {"profile": slug, **more},
    st.one_of(st.sampled_from(SLUGS), junk),
    st.dictionaries(keys, junk, max_size=3),
)
chosen = st.builds(
    lambda size, word: {"profile": "choice", "size": size, **word},
    st.one_of(st.sampled_from(["s", "l", "xl", "S", ""]), junk),
    st.dictionaries(st.sampled_from(["word", "word--unlisted-choice"]), texts, max_size=2),
)
#: what is right, seldom: each starts a container
_right = st.sampled_from([{"profile": "plain"}, {}, {"profile": "choice", "size": "l"}])
options = st.one_of(junk, near, near, chosen)


def _deep(depth: int, way: str) -> bytes:
    pairs = {"list": ("[", "]"), "map": ('{"profile":', "}")}
    opening, closing = pairs[way]
    return (opening * depth + "1" + closing * depth).encode()


#: bodies that are no JSON value, or that readers understand in different ways
raw = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b'{"profile":"plain","profile":"big"}',
            b'{"profile":"big","profile":["plain"]}',
            b'{"profile":NaN}',
            b'{"profile":"plain","x":Infinity}',
            b'{"profile":-Infinity}',
            b'{"profile":1e999}',
            b'{"profile":"\\ud800"}',
            b'{"\\udc00":"plain"}',
            b'{"profile":"plain\\u0000"}',
            b'\xef\xbb\xbf{"profile":"plain"}',
            b'{"profile":"\xff\xfe"}',
            b'{"profile":' + b"9" * 5000 + b"}",
            b'{"profile":"' + b"x" * 500_000 + b'"}',
            b'{"user_options":["big"]}',
            b'{"user_options":{"profile":"big"}}',
            b'{"user_options":null,"profile":"big"}',
            b'{"display_name":7}',
            b'{"profile":"plain"',
            b"NaN",
            b'"plain"',
            b"[[]]",
        ]
    ),
    st.builds(_deep, st.sampled_from([10, 200, 490, 900, 990, 3000, 100_000]),
              st.sampled_from(["list", "map"])),
)  # fmt: skip


def _json(door: str, value: Any, wrapped: bool) -> Case:
    sent = {"user_options": value} if wrapped else value
    return Case(door=door, body=json.dumps(sent).encode(), value=value)


_by_json = st.builds(
    _json, st.sampled_from(["post", "named", "put", "stored"]), options, st.booleans()
)
# the Hub's own handler of PATCH answers 500 to a body without this envelope
_by_patch = st.builds(_json, st.just("patch"), options, st.just(True))
right = st.builds(_json, st.sampled_from(["post", "named", "put", "patch"]), _right, st.just(True))
_raw = st.builds(Case, door=st.sampled_from(["post", "named", "stored"]), body=raw)
_field_names = st.one_of(
    st.sampled_from(["profile", "profile-option-choice--size", "profile-option-big--size"]),
    st.sampled_from(WORDS),
    st.text(alphabet=string.ascii_letters + "-_[]{}<>%", max_size=20),
)
_plain_text = texts.map(lambda text: text.encode("utf-8", "replace").decode()[:3000])
_fields = st.lists(
    st.tuples(_field_names, st.one_of(st.sampled_from(SLUGS), _plain_text)), min_size=1, max_size=5
).map(tuple)
_form = st.builds(Case, door=st.sampled_from(["form", "query"]), fields=_fields)

cases = st.one_of(_by_json, _by_json, _by_json, _by_patch, _raw, _form, _form)
