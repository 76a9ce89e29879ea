"""A real Hub with the real single-user image, and people who look at it through Chromium.

``GPUS_SCREENSHOTS=1`` renews the pictures in ``docs/images``; else they go to a temporary folder.
``GPUS_IMAGE`` names a single-user image that the engine has already; else it is built.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from deploy.quickstart.trial import ROOT, TrialHub, wait_for
from tests.hubs import run_hub

from .visitor import LAB, STEP, Visitor

# its own five seconds are short on a machine that does other things too
expect.set_options(timeout=STEP)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: nothing outside of this machine is asked, no sandbox as root, no first-run pages
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

#: a browser's options on a small phone
PHONE = {"viewport": {"width": 375, "height": 812}, "device_scale_factor": 1, "has_touch": True}
#: pictures in ``docs/images``
SHOWN = ("spawn-form", "waiting", "my-servers", "hub-admin", "admin-gpus", "my-groups", "notice")

#: the shipped configuration, and a profile that can't ever start, for one user to try
AFTER = """
c.GPUScheduler.node_name = "testbed"
c.GPUScheduler.cdi_dir = {cdi!r}
c.GPUScheduler.detach_grace = 3
c.JupyterHub.load_groups = dict(
    big=dict(users=["grace"]),
    idlers=dict(users=["nina"]),
    brief=dict(users=["otto"]),
    physics=dict(users=["olga", "rosa"]),
)
c.JupyterHub.load_roles = [
    dict(name="lead", users=["dora"], scopes=["custom:gpus:read!group=physics"])
]
c.GPUScheduler.group_gpu_budgets = dict(physics=dict(hours=100, period="7d"))
c.GPUScheduler.user_gpu_budgets = dict(zoe=dict(hours=20, period="7d"))
# of all users only these are warned, after seconds, and an hour before the stop
c.GPUScheduler.group_idle_timeouts = dict(idlers=3)
c.GPUScheduler.idle_min_runtime = 1
c.GPUScheduler.idle_warning = 3600
# and one who is past a length while somebody waits
c.GPUScheduler.reclaim_warning = 3600
c.GPUDockerSpawner.profile_list.append(
    dict(
        display_name="One GPU for seconds",
        slug="brief",
        allowed_groups=["brief"],
        spawner_override=dict(gpus=1, length=2),
    )
)
c.GPUScheduler.reconcile_interval = 2
c.GPUDockerSpawner.activity_interval = 2
c.GPUDockerSpawner.warning_interval = 2
c.GPUDockerSpawner.profile_list.append(
    dict(
        display_name="Eight GPUs",
        slug="gpu8",
        allowed_groups=["big"],
        spawner_override=dict(gpus=8),
    )
)
"""


@pytest.fixture(scope="session")
def singleuser_image(docker_client: Any) -> str:
    """The real single-user image on the testbed's engine, built when it is missing."""
    named = os.environ.get("GPUS_IMAGE")
    if named:
        return named
    from deploy.quickstart import recipes
    from tests.testbed.images import ensure_base

    ensure_base(docker_client)
    return recipes.ensure_singleuser(docker_client).tag


@pytest.fixture(scope="package")
def hub(engine: Any, docker_client: Any, singleuser_image: str) -> Iterator[TrialHub]:
    """One Hub with two simulated GPUs for all tests here."""
    hub = TrialHub(
        image=singleuser_image,
        simulate=2,
        after=AFTER.format(cdi=str(engine.folder / "cdi")),
        env={"DOCKER_HOST": engine.base_url, "GPUS_BRIDGE_IP": engine.gateway},
    )
    with run_hub(hub, docker_client):
        yield hub


# Not for the session: Playwright's event loop runs all the time, and async tests need their own.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Headless Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the pictures go. Those that the documentation shows are copied there when asked."""
    folder = tmp_path_factory.mktemp("pictures")
    yield folder
    if os.environ.get("GPUS_SCREENSHOTS") == "1":
        images = ROOT / "docs" / "images"
        images.mkdir(exist_ok=True)
        for name in SHOWN:
            if (folder / f"{name}.png").exists():
                shutil.copyfile(folder / f"{name}.png", images / f"{name}.png")


@pytest.fixture
def visit(
    request: pytest.FixtureRequest, hub: TrialHub, chromium: Browser, pictures: Path
) -> Iterator[Callable[..., Visitor]]:
    """Opens a browser of its own for a user. At the end all servers are stopped."""
    visitors: list[Visitor] = []
    request.node.stash[_VISITORS] = visitors

    def open_browser(name: str, **options: Any) -> Visitor:
        options.setdefault("viewport", {"width": 1200, "height": 800})
        context = chromium.new_context(base_url=hub.base, **options)
        visitor = Visitor(context, name, pictures)
        visitors.append(visitor)
        return visitor

    yield open_browser
    for visitor in visitors:
        visitor.context.close()
    stop_all(hub)
    assert [v.alerts for v in visitors if v.alerts] == [], "a page opened a dialog box"


def running(hub: TrialHub, name: str, profile: str) -> None:
    """Give somebody a server without a browser, which is quicker."""
    person = hub.person(name)
    person.ask({"profile": profile})
    person.wait(limit=LAB / 1000)


def stopped(hub: TrialHub, name: str) -> None:
    """Stop somebody's server without a browser."""
    hub.person(name).stop()


def stop_all(hub: TrialHub) -> None:
    """Stop every server, and cancel every start."""
    admin = hub.person("admin", admin=True)

    def done() -> bool:
        users = admin.api("GET", "/users?state=active").json()
        for user in users:
            admin.api("DELETE", f"/users/{quote(user['name'], safe='')}/server")
        return not users and not hub.busy()

    wait_for("the end of all servers", 120, done)


_VISITORS: pytest.StashKey[list[Visitor]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add to a failed test what the people saw, and the end of the Hub's log."""
    report = yield
    if report.failed and report.when == "call":
        for visitor in item.stash.get(_VISITORS, []):
            report.sections.append((f"what {visitor.name} sees", visitor.describe()))
        hub = getattr(item, "funcargs", {}).get("hub")
        if hub is not None:
            report.sections.append(("Hub", hub.last_words(40)))
    return report
