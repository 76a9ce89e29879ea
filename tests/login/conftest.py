"""A real Hub with the shipped configuration, a real OpenID provider, and people at Chromium."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.quickstart.trial import Site, TrialHub
from tests.browser.conftest import chromium  # noqa: F401 (a fixture)
from tests.browser.visitor import STEP, steady
from tests.hubs import run_hub

from . import provider as providers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: what the tests ask of the shipped configuration to be different: small servers on the testbed's
#: engine, and a profile for everybody that a group's limit refuses
AFTER = """
c.GPUScheduler.node_name = "testbed"
c.GPUScheduler.cdi_dir = {cdi!r}
c.GPUScheduler.detach_grace = 3
c.GPUDockerSpawner.stop_grace = 2
c.GPUDockerSpawner.profile_list.append(
    dict(display_name="A pair", slug="pair", spawner_override=dict(gpus=2))
)
for profile in c.GPUDockerSpawner.profile_list:
    profile["spawner_override"]["mem_limit"] = "64M"
"""

#: as an admin would write them; the rest are addresses
SITE = {
    "GPUS_LOGIN": "oidc",
    "GPUS_LOGIN_NAME": "the lab's login",
    "GPUS_SUBDOMAINS": "yes",
    "GPUS_GROUP_MAP": '{"/lab/gpu": "research", "/lab/heads": ["research", "heads"], '
    '"/lab/course": "students"}',
    "GPUS_ALLOWED_GROUPS": "research, students",
    "GPUS_ADMIN_GROUPS": "heads",
    "GPUS_PROFILE_GROUPS": '{"gpu2": ["research"]}',
    "GPUS_GROUP_LIMITS": '{"students": 1}',
}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for loopback that nobody has signed, its key beside it."""
    made = tmp_path_factory.mktemp("tls") / "hub.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(made.with_suffix(".key")), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture(scope="package")
def new_hub(engine: Any, stub_image: str, certificate: Path) -> TrialHub:
    """The Hub, not started yet: its address is known."""
    made = TrialHub(
        image=stub_image,
        simulate=2,
        after=AFTER.format(cdi=str(engine.folder / "cdi")),
        env={"DOCKER_HOST": engine.base_url, "GPUS_BRIDGE_IP": engine.gateway},
        site=Site(certificate=certificate, host="gpus.localhost"),
    )
    made.limit = 240
    return made


@pytest.fixture(scope="package")
def provider(
    new_hub: TrialHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[providers.Provider]:
    """The provider that the Hub asks."""
    reason = providers.missing()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("provider")
    made = providers.Provider(folder, f"{new_hub.public}/hub/oauth_callback")
    made.knows("head", "/lab/heads", "/lab/else")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="package")
def hub(new_hub: TrialHub, provider: providers.Provider, docker_client: Any) -> Iterator[TrialHub]:
    """The Hub, with TLS, a host name for each user, and groups asked again before each start."""
    secret = new_hub.state / "client-secret"
    secret.write_text(provider.client_secret + "\n")
    new_hub.more(
        **SITE,
        GPUS_PUBLIC_URL=new_hub.public,
        GPUS_CLIENT_ID=provider.client_id,
        GPUS_CLIENT_SECRET_FILE=str(secret),
        GPUS_OIDC_AUTHORIZE_URL=f"{provider.base}/auth",
        GPUS_OIDC_TOKEN_URL=f"{provider.base}/token",
        GPUS_OIDC_USERDATA_URL=f"{provider.base}/me",
        GPUS_PASSWORD="",
        GPUS_ADMIN_PASSWORD="",
        JUPYTERHUB_CRYPT_KEY=secrets.token_hex(32),
    )
    with run_hub(new_hub, docker_client) as hub:
        yield hub


class Somebody:
    """A person at a browser of their own, who has an account at the provider."""

    def __init__(self, page: Page, hub: TrialHub, name: str) -> None:
        self.page = page
        self.name = name
        self._hub = hub

    def go(self, path: str) -> Any:
        """Open a page; the answer."""
        return steady(lambda: self.page.goto(path))

    def sign_in(self) -> None:
        """By the button of the Hub and the page of the provider, wherever that leads."""
        steady(self._sign_in)

    def _sign_in(self) -> None:
        self.page.context.clear_cookies()
        self.page.goto("/hub/login?next=/hub/home")
        self.page.get_by_role("button", name="Sign in with the lab's login").click()
        self.page.locator("input[name=login]").fill(self.name)
        self.page.locator("input[name=password]").fill("any will do")
        self.page.get_by_role("button", name="Sign-in").click()
        self.page.wait_for_url(f"{self._hub.public}/**")

    def text(self) -> str:
        """What the page shows."""
        return self.page.locator("body").inner_text()

    def form(self) -> str:
        """What the spawn form shows."""
        self.go(f"/hub/spawn/{self.name}")
        return self.text()

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A call of the Hub's REST API from the person's page: status and answer."""
        found = steady(lambda: self._fetch(method, path, body))
        return found[0], found[1]

    def _fetch(self, method: str, path: str, body: Any) -> Any:
        if not self.page.evaluate("Boolean(window.jhdata)"):
            self.page.goto("/hub/home")
        return self.page.evaluate(
            """async ([method, path, body]) => {
                const answer = await fetch("/hub/api" + path, {
                    method, headers: {
                        "X-XSRFToken": window.jhdata.xsrf_token,
                        "Content-Type": "application/json",
                    },
                    body: body === null ? undefined : JSON.stringify(body),
                });
                const text = await answer.text();
                return [answer.status, text ? JSON.parse(text) : null];
            }""",
            [method, path, body],
        )


@pytest.fixture
def somebody(
    request: pytest.FixtureRequest,
    hub: TrialHub,
    provider: providers.Provider,
    chromium: Browser,  # noqa: F811
) -> Iterator[Callable[..., Somebody]]:
    """Makes a person who is in some groups of the provider, at a new browser."""
    made: list[Somebody] = []
    request.node.stash[_PEOPLE] = made

    def come(name: str, *groups: str) -> Somebody:
        provider.knows(name, *groups)
        context = chromium.new_context(base_url=hub.public, ignore_https_errors=True)
        context.set_default_timeout(STEP)
        made.append(Somebody(context.new_page(), hub, name))
        return made[-1]

    yield come
    for person in made:
        person.page.context.close()


_PEOPLE: pytest.StashKey[list[Somebody]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add to a failed test what the people saw, and the end of the Hub's log."""
    report = yield
    if report.failed and report.when == "call":
        for person in item.stash.get(_PEOPLE, []):
            report.sections.append((person.name, f"{person.page.url}\n{person.text()}"))
        hub = getattr(item, "funcargs", {}).get("hub")
        if hub is not None:
            report.sections.append(("Hub", hub.last_words(40)))
    return report
