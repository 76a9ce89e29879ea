"""Who may log in, from environment variables: what ``jupyterhub_config.py`` calls for it.

::

    from jupyterhub_gpuspawner.sign_in import sign_in
    sign_in(c)

Secrets may lie in files: GPUS_CLIENT_SECRET_FILE, GPUS_PASSWORD_FILE, GPUS_ADMIN_PASSWORD_FILE.
Nobody is let in by accident: without a list of who may come, and without an explicit "everybody",
the Hub does not start. Each mistake is one line.
"""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Any

from . import environment

WAYS = ("password", "oidc", "github", "gitlab", "google")

#: the class of each provider, by path: its import takes seconds, and only the Hub needs it
_CLASSES = {
    "oidc": f"{__package__}.provider_login.OpenIDLogin",
    "github": f"{__package__}.provider_login.GitHubLogin",
    "gitlab": f"{__package__}.provider_login.GitLabLogin",
    "google": f"{__package__}.provider_login.GoogleLogin",
}
_NAMES = {"oidc": "OpenID Connect", "github": "GitHub", "gitlab": "GitLab", "google": "Google"}
#: addresses of an OpenID Connect provider, by option of the authenticator
_ADDRESSES = {
    "authorize_url": "GPUS_OIDC_AUTHORIZE_URL",
    "token_url": "GPUS_OIDC_TOKEN_URL",
    "userdata_url": "GPUS_OIDC_USERDATA_URL",
}
#: variables that mean nothing where a shared password is asked
_OF_PROVIDERS = ("GPUS_ALLOWED_GROUPS", "GPUS_ADMIN_GROUPS", "GPUS_GROUP_MAP", "GPUS_CLIENT_ID")
#: the public addresses of providers where everybody in the world has an account
_WORLD = {"github": "https://github.com", "gitlab": "https://gitlab.com"}
#: the Hub's own variable: it encrypts what it keeps of a login
CRYPT_KEY = "JUPYTERHUB_CRYPT_KEY"
_EXAMPLE = '{"lab/gpu-users": "research"}'


def sign_in(c: Any) -> None:
    """Set who may log in, and how, in the Hub's config ``c``. SystemExit: one line."""
    way = environment.choice("GPUS_LOGIN", WAYS)
    if way == "password":
        _shared_password(c)
    else:
        _provider(c, way)
    # who left is asked again after so many days; the Hub's own default is two weeks
    default = 14 if way == "password" else 1
    c.JupyterHub.cookie_max_age_days = environment.number("GPUS_LOGIN_DAYS", default, 1, 365)


def _shared_password(c: Any) -> None:
    for name in _OF_PROVIDERS:
        if environment.text(name):
            raise SystemExit(
                f"{name} is set, but GPUS_LOGIN is 'password': groups come from a provider only "
                f"({', '.join(WAYS[1:])})"
            )
    password = environment.secret("GPUS_PASSWORD", 8)
    if not password:
        raise SystemExit(
            "GPUS_PASSWORD must be set to at least 8 characters (./quickstart makes one), or "
            "GPUS_LOGIN to a provider"
        )
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = password
    allowed = environment.names("GPUS_ALLOWED_USERS")
    admins = environment.names("GPUS_ADMINS") or {"admin"}
    # who has the password may come, where no names are given
    c.SharedPasswordAuthenticator.allow_all = not allowed
    c.SharedPasswordAuthenticator.allowed_users = allowed
    # else whoever was let in once would be let in for good
    c.SharedPasswordAuthenticator.allow_existing_users = False
    # Admins need a password of their own.
    admin_password = environment.secret("GPUS_ADMIN_PASSWORD", 32)
    if admin_password:
        c.SharedPasswordAuthenticator.admin_password = admin_password
        c.SharedPasswordAuthenticator.admin_users = admins


def _provider(c: Any, way: str) -> None:
    public = environment.url("GPUS_PUBLIC_URL")
    if not public:
        raise SystemExit(
            f"GPUS_PUBLIC_URL is missing: {_NAMES[way]} sends people back to it, such as "
            "https://gpus.example.org"
        )
    client, secret = environment.text("GPUS_CLIENT_ID"), environment.secret("GPUS_CLIENT_SECRET")
    if not client or not secret:
        missing = "GPUS_CLIENT_SECRET (or GPUS_CLIENT_SECRET_FILE)" if client else "GPUS_CLIENT_ID"
        raise SystemExit(f"{missing} is missing: {_NAMES[way]} gives it to you for this Hub")
    c.JupyterHub.authenticator_class = _CLASSES[way]
    options = c.ProviderLogin
    if environment.text("GPUS_PROVIDER_URL") and way not in _WORLD:
        raise SystemExit(f"GPUS_PROVIDER_URL is for {' and '.join(_WORLD)}, not for {way}")
    service = environment.text("GPUS_LOGIN_NAME", _NAMES[way])
    options.login_service = service
    options.client_id, options.client_secret = client, secret
    options.oauth_callback_url = f"{public}/hub/oauth_callback"
    # with a key the Hub keeps the provider's tokens, encrypted, and asks again before each start
    options.enable_auth_state = _has_crypt_key()
    options.manage_groups = True
    options.group_map = environment.lists("GPUS_GROUP_MAP", _EXAMPLE)
    server = environment.url("GPUS_PROVIDER_URL", _WORLD.get(way, ""))
    {"oidc": _oidc, "github": _github, "gitlab": _gitlab, "google": _google}[way](c, server)
    _allow(options, way, server)
    options.custom_403_message = (
        f"{service} knows you, but this Hub does not let you in. Please ask an administrator of "
        "the Hub to add you, or sign in at the provider as somebody else."
    )


def _has_crypt_key() -> bool:
    keys = [key for key in os.environ.get(CRYPT_KEY, "").split(";") if key.strip()]
    for key in keys:
        if not re.fullmatch(r"[0-9A-Fa-f]{64}", key):
            raise SystemExit(f"{CRYPT_KEY} must be 32 bytes in hex, as openssl rand -hex 32 makes")
    return bool(keys)


def _allow(options: Any, way: str, server: str) -> None:
    """Who is let in, and who is an admin. Never everybody by accident."""
    everybody = environment.flag("GPUS_ALLOW_ALL")
    users, groups = (
        environment.names("GPUS_ALLOWED_USERS"),
        environment.names("GPUS_ALLOWED_GROUPS"),
    )
    if everybody and (users or groups):
        raise SystemExit(
            "GPUS_ALLOW_ALL is set, and GPUS_ALLOWED_USERS or GPUS_ALLOWED_GROUPS too: keep one"
        )
    if not (everybody or users or groups):
        raise SystemExit(
            "nobody may log in: name them in GPUS_ALLOWED_USERS or GPUS_ALLOWED_GROUPS, or set "
            f"GPUS_ALLOW_ALL=yes for everybody whom {_NAMES[way]} knows"
        )
    world = server == _WORLD.get(way, "-") or (
        way == "google" and not environment.text("GPUS_GOOGLE_DOMAIN")
    )
    if everybody and world:
        raise SystemExit(
            f"GPUS_ALLOW_ALL would let in everybody in the world who has an account of "
            f"{_NAMES[way]}: use GPUS_ALLOWED_USERS or GPUS_ALLOWED_GROUPS"
        )
    options.allow_all = everybody
    options.allow_existing_users = False
    options.allowed_users, options.allowed_groups = users, groups
    options.admin_users = environment.names("GPUS_ADMINS")
    options.admin_groups = environment.names("GPUS_ADMIN_GROUPS")


def _oidc(c: Any, server: str) -> None:
    options = c.OpenIDLogin
    for option, name in _ADDRESSES.items():
        found = environment.url(name)
        if not found:
            raise SystemExit(
                f"{name} is missing; your provider's /.well-known/openid-configuration has it"
            )
        setattr(options, option, found)
    options.scope = environment.text("GPUS_OIDC_SCOPES", "openid profile").split()
    options.username_claim = environment.text("GPUS_OIDC_USERNAME_CLAIM", "preferred_username")
    claim = environment.text("GPUS_OIDC_GROUPS_CLAIM", "groups")
    options.auth_state_groups_key = f"oauth_user.{claim}"


def _github(c: Any, server: str) -> None:
    c.GitHubLogin.github_url = server
    c.GitHubLogin.scope = ["read:org"]
    c.GitHubLogin.populate_teams_in_auth_state = True


def _gitlab(c: Any, server: str) -> None:
    c.GitLabLogin.gitlab_url = server
    c.GitLabLogin.scope = ["openid", "read_user"]


def _google(c: Any, server: str) -> None:
    options = c.GoogleLogin
    domain = environment.text("GPUS_GOOGLE_DOMAIN").lower()
    if domain:
        options.hosted_domain = [domain]
    key, admin = environment.file("GPUS_GOOGLE_KEY_FILE"), environment.text("GPUS_GOOGLE_ADMIN")
    wanted = environment.names("GPUS_ALLOWED_GROUPS") | environment.names("GPUS_ADMIN_GROUPS")
    if not key:
        if wanted or environment.text("GPUS_GROUP_MAP"):
            raise SystemExit(
                "GPUS_GOOGLE_KEY_FILE is missing: Google tells groups only to a service account"
            )
        return
    if not domain or not admin:
        missing = "GPUS_GOOGLE_ADMIN" if domain else "GPUS_GOOGLE_DOMAIN"
        raise SystemExit(f"{missing} is missing: with GPUS_GOOGLE_KEY_FILE it is needed")
    if not _installed("google.oauth2.service_account"):
        raise SystemExit(
            "GPUS_GOOGLE_KEY_FILE needs a package: pip install 'oauthenticator[googlegroups]'"
        )
    options.google_service_account_keys = {domain: key}
    options.gsuite_administrator = {domain: admin}
    # has the library ask for groups; whom they let in is for the options of all providers
    options.allowed_google_groups = {domain: set()}
    options.auth_state_groups_key = "google_user.google_groups"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
