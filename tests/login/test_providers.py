"""What each provider's answers make of a user, with the real classes of ``oauthenticator``.

GitHub, GitLab and Google can't be asked here: a small server answers as their documentation says.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from tornado.web import HTTPError
from traitlets.config import Config
from traitlets.utils.importstring import import_item

from jupyterhub_gpuspawner.sign_in import sign_in

CLIENT = {
    "GPUS_PUBLIC_URL": "https://gpus.example.org",
    "GPUS_CLIENT_ID": "gpu-hub",
    "GPUS_CLIENT_SECRET": "the-secret-of-the-client",
}
TOKEN = {"access_token": "a-token", "token_type": "bearer", "scope": "all"}


class Provider:
    """Answers by path. ``asked``: (path, what it was authorized with)."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str]] = []
        self.base = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("Authorization", "")))
        found = self.answers.get(request.path, 404)
        if isinstance(found, int):
            return web.json_response({"error": "no"}, status=found)
        if isinstance(found, str):
            return web.Response(text=found)
        return web.json_response(found)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def authenticator(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The authenticator that the Hub would have under these variables."""
    for name in [name for name in os.environ if name.startswith(("GPUS_", "JUPYTERHUB_"))]:
        monkeypatch.delenv(name)

    def make(**variables: str) -> Any:
        for name, value in {**CLIENT, **variables}.items():
            monkeypatch.setenv(name, value)
        c = Config()
        sign_in(c)
        return import_item(c.JupyterHub.authenticator_class)(config=c)

    return make


@pytest.fixture
def oidc(authenticator: Callable[..., Any], provider: Provider) -> Callable[..., Any]:
    """An OpenID Connect provider that knows ann, and its authenticator."""
    provider.answers = {
        "/token": TOKEN,
        "/me": {"preferred_username": "Ann", "groups": ["/lab/gpu", "/other"]},
    }

    def make(**variables: str) -> Any:
        given = {"GPUS_ALLOWED_GROUPS": "research", "GPUS_GROUP_MAP": '{"/lab/gpu": "research"}'}
        return authenticator(
            GPUS_LOGIN="oidc",
            GPUS_LOGIN_NAME="the lab",
            GPUS_OIDC_AUTHORIZE_URL=f"{provider.base}/auth",
            GPUS_OIDC_TOKEN_URL=f"{provider.base}/token",
            GPUS_OIDC_USERDATA_URL=f"{provider.base}/me",
            **{**given, **variables},
        )

    return make


#: what the callback's handler has; the verifier is that of the state's cookie
HANDLER = SimpleNamespace(
    get_argument=lambda name, default=None: "a-code",
    get_state_cookie=lambda: "eyJjb2RlX3ZlcmlmaWVyIjogImEtdmVyaWZpZXIifQ==",
)


async def login(authenticator: Any) -> Any:
    """As the Hub does it: the user's model, None where the user is not let in."""
    return await authenticator.get_authenticated_user(HANDLER, None)


async def test_openid_connect_names_groups_by_the_map_and_drops_the_others(
    oidc: Callable[..., Any],
) -> None:
    model = await login(oidc())
    assert (model["name"], model["groups"], model["admin"]) == ("ann", ["research"], False)


async def test_without_a_map_the_groups_are_the_providers(oidc: Callable[..., Any]) -> None:
    model = await login(oidc(GPUS_GROUP_MAP="", GPUS_ALLOWED_GROUPS="/other"))
    assert model["groups"] == ["/lab/gpu", "/other"]


@pytest.mark.parametrize(
    ("claims", "claim", "groups"),
    [
        ({"realm": {"groups": ["gpu"]}}, "realm.groups", ["gpu"]),
        ({"https://lab.example.org/groups": ["gpu"]}, "https://lab.example.org/groups", ["gpu"]),
        ({"groups": "gpu"}, "groups", ["gpu"]),
        ({"groups": ["gpu", "", 3, None]}, "groups", ["gpu"]),
        ({"groups": []}, "groups", []),
        ({}, "groups", []),
        ({"realm": "text"}, "realm.groups", []),
    ],
)
async def test_groups_are_found_where_the_claim_says_whatever_is_there(
    oidc: Callable[..., Any],
    provider: Provider,
    claims: dict[str, Any],
    claim: str,
    groups: list[str],
) -> None:
    provider.answers["/me"] = {"preferred_username": "ann", **claims}
    everybody = {"GPUS_ALLOWED_GROUPS": "", "GPUS_ALLOW_ALL": "yes", "GPUS_GROUP_MAP": ""}
    model = await login(oidc(GPUS_OIDC_GROUPS_CLAIM=claim, **everybody))
    assert model["groups"] == groups


async def test_who_is_in_no_allowed_group_is_not_let_in(
    oidc: Callable[..., Any], provider: Provider
) -> None:
    provider.answers["/me"]["groups"] = ["research"]  # the provider's, which the map does not name
    assert await login(oidc()) is None


async def test_an_admin_is_one_by_name_or_group_and_anybody_else_is_none(
    oidc: Callable[..., Any],
) -> None:
    assert (await login(oidc(GPUS_ADMINS="ann")))["admin"] is True
    assert (await login(oidc(GPUS_ADMINS="", GPUS_ADMIN_GROUPS="research")))["admin"] is True
    # False, not None: None would leave the rights of an earlier login
    assert (await login(oidc(GPUS_ADMINS="bob", GPUS_ADMIN_GROUPS="")))["admin"] is False


async def test_an_address_that_nobody_has_verified_is_no_name(
    oidc: Callable[..., Any], provider: Provider
) -> None:
    provider.answers["/me"] = {"email": "ann@example.org", "groups": ["/lab/gpu"]}
    made = oidc(GPUS_OIDC_USERNAME_CLAIM="email")
    with pytest.raises(HTTPError) as refused:
        await login(made)
    assert refused.value.status_code == 403
    provider.answers["/me"]["email_verified"] = True
    assert (await login(made))["name"] == "ann@example.org"


@pytest.mark.parametrize(
    ("path", "answer", "status", "words"),
    [
        ("/token", 401, 502, "did not accept this sign-in"),
        ("/token", 503, 503, "does not answer, so nobody can sign in right now"),
        ("/me", 500, 503, "does not answer"),
        ("/me", 403, 502, "did not accept"),
        ("/token", "<html>", 502, "was not understood"),
        ("/token", ["a"], 502, "was not understood"),
        ("/token", {"access_token": "x"}, 502, "was not understood"),
        ("/me", "not json", 502, "was not understood"),
        ("/me", {"groups": []}, 502, "was not understood"),
        ("/me", "", 502, "was not understood"),
    ],
)
async def test_a_provider_that_fails_is_a_readable_page_without_secrets(
    oidc: Callable[..., Any], provider: Provider, path: str, answer: Any, status: int, words: str
) -> None:
    provider.answers[path] = answer
    with pytest.raises(HTTPError) as failed:
        await login(oidc())
    assert failed.value.status_code == status
    assert words in failed.value.log_message
    assert "the lab" in failed.value.log_message
    assert CLIENT["GPUS_CLIENT_SECRET"] not in failed.value.log_message


async def test_a_provider_without_anybody_listening_is_told_before_the_browser_is_sent_there(
    oidc: Callable[..., Any],
) -> None:
    made = oidc()
    await made.check_reachable()
    made.token_url = "http://127.0.0.1:1/token"
    for ask in (made.check_reachable, lambda: login(made)):
        with pytest.raises(HTTPError) as failed:
            await ask()
        assert failed.value.status_code == 503
        assert "does not answer" in failed.value.log_message


class User:
    """Somebody whom the Hub keeps a login of."""

    name = "ann"

    async def get_auth_state(self) -> dict[str, Any]:
        return {"token_response": TOKEN}


async def test_a_refresh_follows_the_provider_and_keeps_what_was_known_without_it(
    oidc: Callable[..., Any], provider: Provider
) -> None:
    made = oidc(JUPYTERHUB_CRYPT_KEY="0f" * 32)
    model = await made.refresh_user(User())
    assert (model["groups"], model["admin"]) == (["research"], False)
    provider.answers["/me"]["groups"] = []
    assert await made.refresh_user(User()) is False, "no longer let in: log in again"
    provider.answers["/me"] = 503
    assert await made.refresh_user(User()) is True
    made.userdata_url = "http://127.0.0.1:1/me"
    assert await made.refresh_user(User()) is True
    made.userdata_url = f"{provider.base}/me"
    provider.answers["/me"] = 401
    assert await made.refresh_user(User()) is False, "the token has expired"


async def test_without_a_key_nothing_is_kept_and_nothing_asked(
    oidc: Callable[..., Any], provider: Provider
) -> None:
    assert await oidc().refresh_user(User()) is True
    assert provider.asked == []


async def test_github_has_organisations_and_teams_as_groups(
    authenticator: Callable[..., Any], provider: Provider
) -> None:
    provider.answers = {
        "/login/oauth/access_token": {**TOKEN, "scope": "read:org"},
        "/api/v3/user": {"login": "Ann", "email": None, "id": 1},
        "/api/v3/user/orgs": [{"login": "our-lab"}, {"login": "elsewhere"}],
        "/api/v3/user/teams": [{"slug": "gpu-users", "organization": {"login": "our-lab"}}],
    }
    made = authenticator(
        GPUS_LOGIN="github",
        GPUS_PROVIDER_URL=provider.base,
        GPUS_GROUP_MAP='{"our-lab": "students", "our-lab:gpu-users": "research"}',
        GPUS_ALLOWED_GROUPS="research",
    )
    model = await login(made)
    assert (model["name"], model["groups"]) == ("ann", ["research", "students"])
    provider.answers["/api/v3/user/teams"] = []
    assert await login(made) is None
    provider.answers["/api/v3/user/orgs"] = 500
    with pytest.raises(HTTPError) as failed:
        await login(made)
    assert failed.value.status_code == 503
    assert {word for path, word in provider.asked if "/user" in path} == {"Bearer a-token"}


async def test_gitlab_has_paths_as_groups(
    authenticator: Callable[..., Any], provider: Provider
) -> None:
    provider.answers = {
        "/oauth/token": TOKEN,
        "/api/v4/user": {"username": "ann", "id": 7},
        "/oauth/userinfo": {"sub": "7", "groups": ["our-lab", "our-lab/gpu-users"]},
    }
    made = authenticator(
        GPUS_LOGIN="gitlab",
        GPUS_PROVIDER_URL=provider.base,
        GPUS_ALLOWED_GROUPS="our-lab/gpu-users",
    )
    assert (await login(made))["groups"] == ["our-lab", "our-lab/gpu-users"]
    provider.answers["/oauth/userinfo"] = {"sub": "7", "groups": []}
    assert await login(made) is None
    provider.answers["/oauth/userinfo"] = {"sub": "7"}
    with pytest.raises(HTTPError) as failed:
        await login(made)
    assert failed.value.status_code == 502


async def test_google_lets_in_by_group_only_and_only_from_the_domain(
    authenticator: Callable[..., Any],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setattr("jupyterhub_gpuspawner.sign_in._installed", lambda module: True)
    made = authenticator(
        GPUS_LOGIN="google",
        GPUS_GOOGLE_DOMAIN="example.org",
        GPUS_GOOGLE_KEY_FILE=str(tmp_path / "key.json"),
        GPUS_GOOGLE_ADMIN="root",
        GPUS_ALLOWED_GROUPS="gpu-users",
    )
    ann = {"email": "ann@example.org", "verified_email": True, "hd": "example.org"}
    provider.answers = {"/token": TOKEN, "/me": ann}
    made.token_url, made.userdata_url = f"{provider.base}/token", f"{provider.base}/me"
    groups = {"gpu-users", "all"}

    async def fetch(email: str, domain: str) -> set[str]:
        assert (email, domain) == ("ann@example.org", "example.org")
        return groups

    monkeypatch.setattr(made, "_fetch_member_groups", fetch)
    model = await login(made)
    assert (model["name"], model["groups"]) == ("ann", ["all", "gpu-users"])
    groups.remove("gpu-users")
    assert await login(made) is None
    groups.add("gpu-users")
    provider.answers["/me"] = {**ann, "hd": "elsewhere.example.org"}
    assert await login(made) is None
    provider.answers["/me"] = {**ann, "verified_email": False}
    with pytest.raises(HTTPError) as refused:
        await login(made)
    assert refused.value.status_code == 403


async def test_google_without_a_service_account_has_no_groups(
    authenticator: Callable[..., Any], provider: Provider
) -> None:
    made = authenticator(
        GPUS_LOGIN="google", GPUS_GOOGLE_DOMAIN="example.org", GPUS_ALLOW_ALL="yes"
    )
    provider.answers = {
        "/token": TOKEN,
        "/me": {"email": "ann@example.org", "verified_email": True, "hd": "example.org"},
    }
    made.token_url, made.userdata_url = f"{provider.base}/token", f"{provider.base}/me"
    model = await login(made)
    assert (model["name"], model["groups"], model["admin"]) == ("ann", [], False)
