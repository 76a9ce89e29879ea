"""OAuth sign-in through ``oauthenticator``, with groups by map and pages that say what went wrong.

What ``oauthenticator`` does stays its own. Added here, for every provider alike:

* a provider that does not answer, or says something else than it should, is a readable page
  (503, 502) and one line in the log; nobody who is signed in loses anything by it;
* the provider's groups become the Hub's groups, by ``group_map`` where there is one;
* admin rights are decided at each login, so that they also go;
* who is no longer let in is signed out, at the next login or refresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import isawaitable
from typing import Any
from urllib.parse import urlsplit

from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.github import GitHubOAuthenticator
from oauthenticator.gitlab import GitLabOAuthenticator
from oauthenticator.google import GoogleOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthenticator, OAuthLoginHandler
from tornado.httpclient import HTTPClientError
from tornado.web import HTTPError
from traitlets import Dict, List, Unicode

#: seconds to reach the provider before a browser is sent there
REACH_PATIENCE = 5.0
#: organisations of a GitHub user that are looked at
MOST_ORGANISATIONS = 100


def _look_up(state: Any, key: str) -> Any:
    """What ``state`` has under ``a.b.c``; a name may hold dots itself. None: nothing."""
    parts = key.split(".")
    while isinstance(state, dict) and parts:
        rest = ".".join(parts)
        if rest in state:
            return state[rest]
        state = state.get(parts.pop(0))
    return None


class LoginHandler(OAuthLoginHandler):
    """Sends the browser to the provider, if the provider is there."""

    async def get(self) -> None:
        await self.authenticator.check_reachable()
        super().get()


class CallbackHandler(OAuthCallbackHandler):
    """Takes the browser back from the provider."""

    async def get(self) -> None:
        try:
            await super().get()
        except HTTPError as error:
            if error.status_code == 403:
                # an older session of the same person must not outlive the refusal
                self.clear_login_cookie()
            raise


class ProviderLogin(OAuthenticator):
    """What the classes below share."""

    login_handler = LoginHandler
    callback_handler = CallbackHandler

    group_map = Dict(
        key_trait=Unicode(),
        value_trait=List(Unicode()),
        config=True,
        help="""
        Which groups of the Hub a group of the provider stands for.

        A dict of the provider's group to a list of names. Groups that are not in it count for
        nothing. Empty (the default): the provider's names are the Hub's. Example:
        ``{"lab/gpu-users": ["research"], "lab/admins": ["research", "admins"]}``.

        .. versionadded:: 0.1
        """,
    )

    # -- the library's calls, with readable failures --------------------------------------------

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        """The user as the provider tells it; HTTPError with a text for people where it fails."""
        with self._readable():
            model = await super().authenticate(handler, data, **kwargs)
        return self._with_admin(model)

    async def check_allowed(self, username: str, auth_model: Any) -> Any:
        """Whether the allow rules let this user in; a question to the provider may fail too."""
        with self._readable():
            return await super().check_allowed(username, auth_model)

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> Any:
        """Groups and rights as they are now; False: log in again.

        A provider that does not answer changes nothing: what was known of the user stays.
        """
        try:
            with self._readable():
                model = await super().refresh_user(user, handler, **kwargs)
            if not isinstance(model, dict):
                return model
            if not await self._still_allowed(model):
                self.log.warning("%s: no longer let in, must log in again", user.name)
                return False
        except HTTPError as error:
            self.log.warning("%s: groups and rights stay as known: %s", user.name, error)
            return True
        return self._with_admin(model)

    async def _still_allowed(self, model: dict[str, Any]) -> bool:
        name = model["name"]
        try:
            if not self.check_blocked_users(name, model):
                return False
            return bool(await self.check_allowed(name, model))
        except HTTPError as error:
            if error.status_code == 403:
                return False
            raise

    @staticmethod
    def _with_admin(model: Any) -> Any:
        # None would mean "as it was": who was an admin once would stay one
        if isinstance(model, dict):
            model["admin"] = bool(model.get("admin"))
        return model

    async def get_user_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """The Hub's groups of the user."""
        found = await self.provider_groups(auth_state)
        if not self.group_map:
            return found
        return {name for group in found for name in self.group_map.get(group, ())}

    async def provider_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """The groups as the provider calls them, by ``auth_state_groups_key``."""
        key = self.auth_state_groups_key
        if not key:
            return set()
        found = key(auth_state) if callable(key) else _look_up(auth_state, key)
        if isawaitable(found):
            found = await found
        if found is None:
            self.log.warning(
                "%s tells no groups (%s): is a scope missing?", self.login_service, key
            )
            return set()
        # one group alone may come as text, which must not fall apart into letters
        many = [found] if isinstance(found, str) else found
        return {group for group in many if isinstance(group, str) and group}

    # -- failures ----------------------------------------------------------------------------------

    async def check_reachable(self) -> None:
        """HTTPError 503 where the provider takes no connection: the browser stays here then.

        The Hub itself must reach it to finish a login, so a browser that can is no use.
        """
        if "proxy_host" in self.http_request_kwargs:
            return
        parts = urlsplit(self.token_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            _, writer = await asyncio.wait_for(
                asyncio.open_connection(parts.hostname, port), REACH_PATIENCE
            )
        except (OSError, asyncio.TimeoutError) as error:
            raise self._unreachable(f"{parts.hostname}:{port}: {error or 'no answer'}") from None
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Failures of the provider as errors that a page can show."""
        try:
            yield
        except HTTPClientError as error:
            if error.code >= 500:  # 599: no answer
                raise self._unreachable(error) from None
            self.log.error("%s refuses what this Hub asks: %s", self.login_service, error)
            raise HTTPError(
                502,
                f"{self.login_service} did not accept this sign-in. Please try again; if it fails "
                "again, tell an administrator: the client id or secret of this Hub may be wrong.",
            ) from None
        except OSError as error:  # no connection, no such host, a wrong certificate
            raise self._unreachable(error) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not_understood(type(error).__name__) from None
        except HTTPError as error:
            if error.status_code != 500:
                raise
            # the library's own, whose text has the answer in it: tokens must not get to a page
            raise self._not_understood("not what OAuth asks for") from None

    def _not_understood(self, why: str) -> HTTPError:
        self.log.error(
            "%s: the answer was not understood (%s); look at its URLs, scopes and claims",
            self.login_service,
            why,
        )
        return HTTPError(
            502,
            f"The answer of {self.login_service} was not understood. Please tell an "
            "administrator: the Hub's log says more.",
        )

    def _unreachable(self, error: object) -> HTTPError:
        self.log.error("%s does not answer: %s", self.login_service, error)
        return HTTPError(
            503,
            f"{self.login_service} does not answer, so nobody can sign in right now. Servers that "
            "run go on. Please try again in a few minutes.",
        )


class OpenIDLogin(ProviderLogin, GenericOAuthenticator):
    """Any OpenID Connect provider: Keycloak, Authentik, Dex, Entra ID …"""

    async def check_allowed(self, username: str, auth_model: Any) -> Any:
        """As above; and an e-mail address is a name only where the provider has verified it."""
        if auth_model is not None and self.username_claim == "email":
            info = auth_model["auth_state"][self.user_auth_state_key]
            if info.get("email_verified") not in (True, "true"):
                raise HTTPError(403, f"{self.login_service} has not verified your e-mail address.")
        return await super().check_allowed(username, auth_model)


class GitHubLogin(ProviderLogin, GitHubOAuthenticator):
    """GitHub. Groups are organisations (``lab``) and their teams (``lab:team``)."""

    async def provider_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """By ``/user/orgs`` and ``/user/teams``, which need the scope ``read:org``."""
        answer = auth_state["token_response"]
        orgs = await self.httpfetch(
            f"{self.github_api}/user/orgs?per_page={MOST_ORGANISATIONS}",
            "fetching organisations",
            headers=self.build_userdata_request_headers(
                answer["access_token"], answer["token_type"]
            ),
            validate_cert=self.validate_server_cert,
        )
        teams = auth_state.get("teams", ())
        return {org["login"] for org in orgs} | {
            f"{team['organization']['login']}:{team['slug']}" for team in teams
        }


class GitLabLogin(ProviderLogin, GitLabOAuthenticator):
    """GitLab. Groups are full paths (``lab/gpu``), inherited ones too."""

    async def provider_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """By ``/oauth/userinfo``, which needs the scope ``openid``."""
        answer = auth_state["token_response"]
        info = await self.httpfetch(
            f"{self.gitlab_url}/oauth/userinfo",
            "fetching groups",
            headers=self.build_userdata_request_headers(
                answer["access_token"], answer["token_type"]
            ),
            validate_cert=self.validate_server_cert,
        )
        return set(info["groups"])


class GoogleLogin(ProviderLogin, GoogleOAuthenticator):
    """Google. Groups need a service account; their names are without the domain."""
