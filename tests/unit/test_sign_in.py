"""Who may log in, by environment variable: the shipped configuration with each way and mistake."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_gpuspawner import environment, sign_in
from tests import howto

# takes JupyterHub to import
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CODE = compile((ROOT / "jupyterhub_config.py").read_text(), "jupyterhub_config.py", "exec")

#: what every provider needs
CLIENT = {
    "GPUS_PUBLIC_URL": "https://gpus.example.org",
    "GPUS_CLIENT_ID": "gpu-hub",
    "GPUS_CLIENT_SECRET": "the-secret-of-the-client",
    "GPUS_ALLOWED_GROUPS": "research, students",
}
OIDC = {
    **CLIENT,
    "GPUS_LOGIN": "oidc",
    "GPUS_OIDC_AUTHORIZE_URL": "https://login.example.org/authorize",
    "GPUS_OIDC_TOKEN_URL": "https://login.example.org/token",
    "GPUS_OIDC_USERDATA_URL": "https://login.example.org/userinfo",
}

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """The shipped configuration under these variables and no others of ours."""
    for name in list(os.environ):
        if name.startswith(("GPUS_", "JUPYTERHUB_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def load(**variables: str) -> Config:
        monkeypatch.setenv("GPUS_STATE_DIR", str(tmp_path / "state"))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        c = Config()
        exec(CODE, {"get_config": lambda: c})
        return c

    return load


def refused(load: Load, **variables: str) -> str:
    """The line that the Hub ends with."""
    with pytest.raises(SystemExit) as end:
        load(**variables)
    line = str(end.value)
    assert "\n" not in line
    assert "Traceback" not in line
    return line


def test_with_a_password_alone_everybody_who_has_it_is_let_in(load: Load) -> None:
    c = load(GPUS_PASSWORD="long enough")
    assert c.JupyterHub.authenticator_class == "shared-password"
    assert c.SharedPasswordAuthenticator.allow_all is True
    assert "admin_users" not in c.SharedPasswordAuthenticator
    assert c.JupyterHub.cookie_max_age_days == 14


def test_a_list_of_users_holds_with_a_password_too_and_forgets_who_was_taken_off(
    load: Load,
) -> None:
    c = load(GPUS_PASSWORD="long enough", GPUS_ALLOWED_USERS="ann, bob,")
    section = c.SharedPasswordAuthenticator
    assert section.allow_all is False
    assert section.allow_existing_users is False
    assert section.allowed_users == {"ann", "bob"}


def test_the_password_may_lie_in_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from the file\n")
    c = load(GPUS_PASSWORD_FILE=str(tmp_path / "password"))
    assert c.SharedPasswordAuthenticator.user_password == "from the file"


def test_openid_connect_takes_groups_limits_and_admins_from_the_variables(load: Load) -> None:
    c = load(
        **OIDC,
        GPUS_LOGIN_NAME="the lab",
        GPUS_OIDC_SCOPES="openid profile groups",
        GPUS_OIDC_GROUPS_CLAIM="realm.groups",
        GPUS_GROUP_MAP='{"/lab/gpu": "research", "/heads": ["research", "heads"]}',
        GPUS_ADMIN_GROUPS="heads",
        GPUS_PROFILE_GROUPS='{"gpu2": "research"}',
        GPUS_GROUP_LIMITS='{"students": 2}',
        GPUS_USER_LIMITS='{"carol": 4}',
        GPUS_SHARES='{"research": {"quota": 4}}',
    )
    assert c.JupyterHub.authenticator_class == "jupyterhub_gpuspawner.provider_login.OpenIDLogin"
    shared, own = c.ProviderLogin, c.OpenIDLogin
    assert shared.oauth_callback_url == "https://gpus.example.org/hub/oauth_callback"
    assert shared.group_map == {"/lab/gpu": ["research"], "/heads": ["research", "heads"]}
    assert (shared.allow_all, shared.allow_existing_users) == (False, False)
    assert shared.allowed_groups == {"research", "students"}
    assert shared.admin_groups == {"heads"}
    assert shared.admin_users == set(), "no name is an admin by default: anybody could take it"
    assert shared.manage_groups is True
    assert shared.enable_auth_state is False
    assert own.auth_state_groups_key == "oauth_user.realm.groups"
    assert own.scope == ["openid", "profile", "groups"]
    assert own.username_claim == "preferred_username"
    groups = {p["slug"]: p.get("allowed_groups") for p in c.GPUDockerSpawner.profile_list}
    assert groups == {"gpu": None, "gpu2": ["research"], "cpu": None}
    assert c.GPUScheduler.group_gpu_limits == {"students": 2}
    assert c.GPUScheduler.user_gpu_limits == {"carol": 4}
    assert c.GPUScheduler.shares == {"research": {"quota": 4}}
    assert c.JupyterHub.cookie_max_age_days == 1


@pytest.mark.parametrize(
    ("way", "variables", "section", "expected"),
    [
        (
            "github",
            {},
            "GitHubLogin",
            {"github_url": "https://github.com", "populate_teams_in_auth_state": True},
        ),
        (
            "gitlab",
            {"GPUS_PROVIDER_URL": "https://git.example.org/"},
            "GitLabLogin",
            {"gitlab_url": "https://git.example.org", "scope": ["openid", "read_user"]},
        ),
        (
            "google",
            {
                "GPUS_GOOGLE_DOMAIN": "Example.org",
                "GPUS_ALLOWED_GROUPS": "",
                "GPUS_ALLOWED_USERS": "ann",
            },
            "GoogleLogin",
            {"hosted_domain": ["example.org"]},
        ),
    ],
)
def test_other_providers(
    load: Load, way: str, variables: dict[str, str], section: str, expected: dict[str, Any]
) -> None:
    c = load(**{**CLIENT, **variables}, GPUS_LOGIN=way)
    assert c.JupyterHub.authenticator_class.endswith(f".{section}")
    assert {name: c[section][name] for name in expected} == expected
    assert c.ProviderLogin.allow_all is False


def test_a_key_has_the_hub_keep_what_it_needs_to_ask_again(load: Load) -> None:
    c = load(**OIDC, JUPYTERHUB_CRYPT_KEY="0f" * 32)
    assert c.ProviderLogin.enable_auth_state is True


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in OIDC.items() if name not in names}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        # who: never everybody by accident
        (without("GPUS_ALLOWED_GROUPS"), "nobody may log in: GPUS_ALLOWED_USERS GPUS_ALLOW_ALL"),
        ({**OIDC, "GPUS_ALLOWED_GROUPS": " , "}, "nobody may log in"),
        ({**OIDC, "GPUS_ALLOW_ALL": "yes"}, "GPUS_ALLOW_ALL GPUS_ALLOWED_GROUPS keep one"),
        ({**OIDC, "GPUS_ALLOW_ALL": "perhaps"}, "GPUS_ALLOW_ALL 'perhaps' yes or no"),
        (
            {**CLIENT, "GPUS_LOGIN": "github", "GPUS_ALLOWED_GROUPS": "", "GPUS_ALLOW_ALL": "yes"},
            "GPUS_ALLOW_ALL everybody in the world GitHub",
        ),
        (
            {**CLIENT, "GPUS_LOGIN": "google", "GPUS_ALLOWED_GROUPS": "", "GPUS_ALLOW_ALL": "yes"},
            "GPUS_ALLOW_ALL everybody in the world Google",
        ),
        # what is missing
        (without("GPUS_CLIENT_SECRET"), "GPUS_CLIENT_SECRET is missing OpenID Connect"),
        (without("GPUS_CLIENT_ID"), "GPUS_CLIENT_ID is missing"),
        (without("GPUS_PUBLIC_URL"), "GPUS_PUBLIC_URL is missing"),
        (without("GPUS_OIDC_TOKEN_URL"), "GPUS_OIDC_TOKEN_URL is missing openid-configuration"),
        ({}, "GPUS_PASSWORD must be set GPUS_LOGIN"),
        ({**CLIENT, "GPUS_LOGIN": "google"}, "GPUS_GOOGLE_KEY_FILE is missing groups"),
        # what is wrong
        ({**OIDC, "GPUS_LOGIN": "saml"}, "GPUS_LOGIN 'saml' password, oidc, github"),
        (
            {**OIDC, "GPUS_OIDC_TOKEN_URL": "http://login.example.org/token"},
            "GPUS_OIDC_TOKEN_URL https:// loopback",
        ),
        ({**OIDC, "GPUS_OIDC_USERDATA_URL": "login"}, "GPUS_OIDC_USERDATA_URL 'login' URL"),
        ({**OIDC, "GPUS_PUBLIC_URL": "http://gpus.example.org"}, "GPUS_PUBLIC_URL https://"),
        ({**OIDC, "GPUS_PUBLIC_URL": "https://[::1"}, "GPUS_PUBLIC_URL URL"),
        ({**OIDC, "GPUS_PROVIDER_URL": "https://x.example.org"}, "GPUS_PROVIDER_URL github"),
        ({**OIDC, "GPUS_GROUP_MAP": "{'a': 'b'}"}, "GPUS_GROUP_MAP is not JSON such as"),
        ({**OIDC, "GPUS_GROUP_MAP": '["a"]'}, "GPUS_GROUP_MAP want JSON such as"),
        ({**OIDC, "GPUS_GROUP_MAP": '{"a": 1}'}, "GPUS_GROUP_MAP want JSON such as"),
        ({**OIDC, "GPUS_GROUP_MAP": '{"a": []}'}, "GPUS_GROUP_MAP 'a' names"),
        ({**OIDC, "GPUS_GROUP_LIMITS": '{"a": true}'}, "GPUS_GROUP_LIMITS want JSON such as"),
        ({**OIDC, "GPUS_SHARES": '{"a": {"qouta": 1}}'}, "shares 'qouta' known: parent"),
        ({**OIDC, "GPUS_PROFILE_GROUPS": '{"big": ["a"]}'}, "GPUS_PROFILE_GROUPS 'big' gpu, gpu2"),
        ({**OIDC, "GPUS_PROFILES_FILE": "/nowhere"}, "GPUS_PROFILES_FILE '/nowhere' No such file"),
        ({**OIDC, "GPUS_CLIENT_SECRET_FILE": "/nowhere"}, "GPUS_CLIENT_SECRET keep one"),
        (
            {**without("GPUS_CLIENT_SECRET"), "GPUS_CLIENT_SECRET_FILE": "/nowhere"},
            "GPUS_CLIENT_SECRET_FILE '/nowhere' No such file",
        ),
        ({**OIDC, "GPUS_TLS_CERT": "/dev/null"}, "GPUS_TLS_CERT GPUS_TLS_KEY belong together"),
        ({**OIDC, "GPUS_TLS_KEY": "/nowhere"}, "GPUS_TLS_KEY '/nowhere' No such file"),
        ({**OIDC, "GPUS_LOGIN_DAYS": "0"}, "GPUS_LOGIN_DAYS '0' 1 to 365"),
        ({**OIDC, "GPUS_LOGIN_NAME": "two\nlines"}, "GPUS_LOGIN_NAME one line"),
        ({**OIDC, "JUPYTERHUB_CRYPT_KEY": "short"}, "JUPYTERHUB_CRYPT_KEY openssl rand -hex 32"),
        (
            {"GPUS_PASSWORD": "long enough", "GPUS_SUBDOMAINS": "yes"},
            "GPUS_SUBDOMAINS needs GPUS_PUBLIC_URL",
        ),
        ({"GPUS_PASSWORD": "long enough", "GPUS_VOLUMES": "/data"}, "GPUS_VOLUMES not JSON"),
        (
            {"GPUS_PASSWORD": "long enough", "GPUS_GROUP_VOLUMES": '{"a": "/data"}'},
            "GPUS_GROUP_VOLUMES want JSON",
        ),
        ({"GPUS_PASSWORD": "long enough", "GPUS_DELETE_HOMES": "maybe"}, "GPUS_DELETE_HOMES yes"),
        *(
            ({"GPUS_PASSWORD": "long enough", name: value}, f"{name} '{value}' {wanted}")
            for name, value, wanted in (
                ("GPUS_IDLE_GPU", "soon", "such as"),
                ("GPUS_IDLE_WARNING", "-1", "such as"),
                ("GPUS_IDLE_MIN_RUNTIME", "0", "between"),
                ("GPUS_IDLE_EXTENSION", "99999d", "between"),
                ("GPUS_RECLAIM_WARNING", "an", "such as"),
                ("GPUS_MEM_LIMIT", "2 cows", "such as"),
                ("GPUS_HOME_WARNING", "much", "such as"),
                ("GPUS_CPU_LIMIT", "0", "above 0"),
                ("GPUS_CPU_LIMIT", "nan", "above 0"),
                ("GPUS_SCHEDULER_OPTIONS", "[1]", "want JSON such as"),
            )
        ),
        *(
            ({"GPUS_PASSWORD": "long enough", name: value}, wanted)
            for name, value, wanted in (
                ("GPUS_SCHEDULER_OPTIONS", '{"age_gard": 1}', "age_gard age_guard"),
                ("GPUS_SCHEDULER_OPTIONS", '{"age_guard": "an"}', "age_guard 'an'"),
                ("GPUS_SCHEDULER_OPTIONS", '{"simulate": 2}', "simulate variable of its own"),
                ("GPUS_SPAWNER_OPTIONS", '{"pid_limit": 2}', "pid_limit pids_limit"),
                ("GPUS_SPAWNER_OPTIONS", '{"pids_limit": "x"}', "pids_limit"),
                ("GPUS_SPAWNER_OPTIONS", '{"image": "x"}', "image variable of its own"),
            )
        ),
        (
            {"GPUS_PASSWORD": "long enough", "GPUS_ALLOWED_GROUPS": "research"},
            "GPUS_ALLOWED_GROUPS GPUS_LOGIN provider",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_variable_and_what_is_wanted(
    load: Load, variables: dict[str, str], words: str
) -> None:
    line = refused(load, **variables)
    pieces = words.split(" ")
    at = 0
    for piece in pieces:
        found = line.find(piece, at) if piece.startswith("'") else line.find(piece)
        assert found >= 0, f"{piece!r} is not in: {line}"
        at = 0
    assert OIDC["GPUS_CLIENT_SECRET"] not in line


def test_profiles_come_from_a_file_and_a_mistake_in_it_is_one_line(
    load: Load, tmp_path: Path
) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(
        "- display_name: Big one\n"
        "  allowed_groups: [research]\n"
        "  spawner_override: {gpus: 4, mem_limit: 8G}\n"
        "- {display_name: Small, spawner_override: {gpus: 1}}\n"
    )
    known = {"GPUS_PASSWORD": "long enough", "GPUS_PROFILES_FILE": str(file)}
    c = load(**known, GPUS_PROFILE_GROUPS='{"small": ["students", "research"]}')
    assert [p["allowed_groups"] for p in c.GPUDockerSpawner.profile_list] == [
        ["research"],
        ["students", "research"],
    ]
    for text, word in (
        ("- {display_name: x, spawner_overide: {}}", "spawner_override"),
        ("- [", "GPUS_PROFILES_FILE"),
        ("{}", "want a list"),
        ("- {display_name: x, allowed_groups: []}", "allowed_groups"),
    ):
        file.write_text(text)
        line = refused(load, **known, GPUS_PROFILE_GROUPS="")
        assert "GPUS_PROFILES_FILE" in line and word in line


def test_volumes_homes_and_lengths_can_be_set_without_python(load: Load) -> None:
    known = {"GPUS_PASSWORD": "long enough"}
    spawner = load(**known).GPUDockerSpawner
    assert not {"volumes", "read_only_volumes", "home_driver", "delete_homes"} & set(spawner)
    c = load(
        **known,
        GPUS_VOLUMES='{"/srv/{username}": "/scratch"}',
        GPUS_READ_ONLY_VOLUMES='{"datasets": "/data"}',
        GPUS_GROUP_VOLUMES='{"vision": {"frames": {"bind": "/frames", "mode": "ro"}}}',
        GPUS_HOME_DRIVER="local",
        GPUS_HOME_OPTIONS='{"type": "nfs", "device": ":/homes/{volume}"}',
        GPUS_DELETE_HOMES="yes",
        GPUS_RECLAIM_WARNING="30m",
        GPUS_HOME_WARNING="50G",
    )
    spawner = c.GPUDockerSpawner
    assert spawner.volumes == {"/srv/{username}": "/scratch"}
    assert spawner.read_only_volumes == {"datasets": "/data"}
    assert spawner.group_volumes == {"vision": {"frames": {"bind": "/frames", "mode": "ro"}}}
    assert (spawner.home_driver, spawner.delete_homes) == ("local", True)
    assert spawner.home_options["device"] == ":/homes/{volume}"
    assert (c.GPUScheduler.reclaim_warning, c.GPUScheduler.home_warning) == ("30m", "50G")


def test_tls_and_host_names_of_their_own_can_be_set(load: Load, tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text("x")
    c = load(
        GPUS_PASSWORD="long enough",
        GPUS_TLS_CERT=str(tmp_path / "cert"),
        GPUS_TLS_KEY="key",
        GPUS_PUBLIC_URL="https://gpus.example.org",
        GPUS_SUBDOMAINS="yes",
    )
    assert c.JupyterHub.bind_url == "https://127.0.0.1:8000"
    assert c.JupyterHub.ssl_key == str(tmp_path / "key")
    assert c.JupyterHub.subdomain_host == "https://gpus.example.org"
    assert c.JupyterHub.public_url == "https://gpus.example.org/"


def test_servers_outlive_the_hub_and_its_database_is_never_changed_unasked(load: Load) -> None:
    c = load(GPUS_PASSWORD="long enough")
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.upgrade_db is False


def settings(text: str) -> dict[str, str]:
    """The variables of an environment file, read as a shell reads them."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            (word,) = shlex.split(line)
            name, _, value = word.partition("=")
            found[name] = value
    return found


def example() -> dict[str, str]:
    """The variables of ``.env.example``."""
    return settings((ROOT / ".env.example").read_text())


BLOCKS = [settings(text) for text in howto.blocks("log-in", __file__)]
#: of other pages, for a site that is right otherwise
MORE = [
    settings(text)
    for texts in (howto.blocks("idle", __file__), howto.blocks("volumes", __file__))
    for text in texts
]


@pytest.mark.parametrize("block", [*BLOCKS, *MORE], ids=lambda block: next(iter(block)))
def test_the_settings_in_the_how_to_start_a_hub(
    load: Load, tmp_path: Path, block: dict[str, str]
) -> None:
    (tmp_path / "file").write_text("x" * 20)
    here = {n: str(tmp_path / "file") for n, v in block.items() if v.startswith("/etc/")}
    c = load(GPUS_PASSWORD="" if "GPUS_LOGIN" in block else "long enough", **{**block, **here})
    way = block.get("GPUS_LOGIN", "shared-password")
    assert way[:4].lower() in c.JupyterHub.authenticator_class.lower().replace("openid", "oidc")


def test_the_settings_of_a_page_are_what_counts(load: Load) -> None:
    c = load(GPUS_PASSWORD="long enough", **{k: v for one in MORE for k, v in one.items()})
    options = c.GPUScheduler
    assert (options.idle_timeout, options.idle_warning, options.idle_min_runtime) == (
        *("2h", "30m", "1h"),
    )
    assert (options.idle_extension, options.cpu_idle_timeout) == ("8h", "12h")
    assert c.GPUDockerSpawner.read_only_volumes["datasets"] == "/data"


def test_what_has_no_variable_of_its_own_is_set_by_name(load: Load) -> None:
    c = load(
        GPUS_PASSWORD="long enough",
        GPUS_SCHEDULER_OPTIONS='{"age_guard": "24h", "backfill": false}',
        GPUS_SPAWNER_OPTIONS='{"pids_limit": 2048}',
        GPUS_MEM_LIMIT="512M",
        GPUS_CPU_LIMIT="0.5",
    )
    assert (c.GPUScheduler.age_guard, c.GPUScheduler.backfill) == ("24h", False)
    spawner = c.GPUDockerSpawner
    assert (spawner.pids_limit, spawner.mem_limit, spawner.cpu_limit) == (2048, "512M", 0.5)


def test_the_how_to_has_settings_for_every_provider() -> None:
    assert [block.get("GPUS_LOGIN") for block in BLOCKS] == [*sign_in.WAYS[1:], None]


def test_the_example_of_an_environment_file_is_one_that_works(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x" * 20)
    there = {
        "GPUS_STATE_DIR": str(tmp_path / "state"),
        "GPUS_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
    }
    c = load(**{**example(), **there})
    assert c.ProviderLogin.allowed_groups == {"research", "students"}
    assert c.GPUDockerSpawner.image == "jupyterhub-gpuspawner/singleuser:latest"


PAGE = (ROOT / "docs" / "reference" / "environment.md").read_text()
_, OF_THE_SITE, OF_OTHERS = re.split(r"^## Of (?:the shipped|\./quickstart).*$", PAGE, flags=re.M)


def variables(text: str) -> set[str]:
    return set(re.findall(r"`(GPUS_[A-Z_]+)`", text))


def test_every_variable_of_the_configuration_is_known_to_the_check_of_names() -> None:
    assert set(environment.SITE) == variables(OF_THE_SITE)


@pytest.mark.parametrize("name", sorted(variables(OF_OTHERS)))
def test_a_variable_of_another_program_is_not_taken_for_a_slip(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    environment.check_names()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("GPUS_PROFILE_GROUP", "GPUS_PROFILE_GROUPS"),
        ("GPUS_ALOWED_GROUPS", "GPUS_ALLOWED_GROUPS"),
        ("GPUS_GROUPS_LIMITS", "GPUS_GROUP_LIMITS"),
        ("GPUS_ADMIN", "GPUS_ADMINS"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_right_name(
    load: Load, wrong: str, right: str
) -> None:
    line = refused(load, GPUS_PASSWORD="long enough", **{wrong: "x"})
    assert line == f"{wrong}: there is no such variable; did you mean {right}?"


def test_the_example_of_an_environment_file_names_only_variables_that_are_read() -> None:
    package = ROOT / "jupyterhub_gpuspawner"
    code = (ROOT / "jupyterhub_config.py").read_text()
    code += "".join(
        (package / f"{name}.py").read_text()
        for name in ("sign_in", "site_profiles", "site_volumes")
    )
    for name in example():
        stem = re.sub(r"_(AUTHORIZE|TOKEN|USERDATA)_URL$", "_", name.removesuffix("_FILE"))
        assert stem in code, name
