"""The documentation is right: it is complete, its examples run, its links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jupyterhub.auth import Authenticator
from traitlets.config import Config

from jupyterhub_gpuspawner import hub, images
from jupyterhub_gpuspawner.cli import main as cli
from jupyterhub_gpuspawner.dockerspawner import GPUDockerSpawner
from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.limit_traits import LimitTraits
from jupyterhub_gpuspawner.profiles import parse_profiles
from jupyterhub_gpuspawner.scheduler.models import LeaseState, Limits, Reason, Settings
from jupyterhub_gpuspawner.scheduler.policy import Budget
from jupyterhub_gpuspawner.scheduler_link import SchedulerLink
from jupyterhub_gpuspawner.service.options import GPUScheduler
from jupyterhub_gpuspawner.spawner import GPUSpawnerMixin
from jupyterhub_gpuspawner.storage_traits import StorageTraits
from jupyterhub_gpuspawner.swarm_traits import SwarmTraits
from jupyterhub_gpuspawner.swarmspawner import GPUSwarmSpawner
from jupyterhub_gpuspawner.user_network import UserNetworkTraits
from tests import howto
from tests.unit.scheduler_world import GIB, World, gpu

# reads every page, and starts what the pages say
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
#: config sections that are checked against a class
SECTIONS = {
    "Authenticator": Authenticator,
    "GPUDockerSpawner": GPUDockerSpawner,
    "GPUSwarmSpawner": GPUSwarmSpawner,
    "GPUSpawnerMixin": GPUSpawnerMixin,
    "GPUScheduler": GPUScheduler,
}
#: sections of others, whose import takes seconds: where their options are defined
SOURCES = {
    "JupyterHub": [("jupyterhub", "app.py")],
    "GenericOAuthenticator": [
        ("oauthenticator", "generic.py"),
        ("oauthenticator", "oauth2.py"),
        ("jupyterhub", "auth.py"),
    ],
}
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def reference(name: str) -> str:
    return read(f"docs/reference/{name}.md")


def blocks(language: str) -> Iterator[Any]:
    """Code blocks of a language in all pages, as pytest parameters."""
    for name in NAMES:
        found = [m for m in _FENCE.finditer(read(name)) if m[2] == language]
        for number, match in enumerate(found, 1):
            yield pytest.param(textwrap.dedent(match[3]), id=f"{name}-{number}")


@lru_cache
def options_of(section: str) -> frozenset[str]:
    """Names of the options of a section. Of others' classes read from their source."""
    if section in SECTIONS:
        return frozenset(SECTIONS[section].class_trait_names(config=True))
    names: set[str] = set()
    for package, file in SOURCES[section]:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package} is not installed")
        source = Path(spec.origin).with_name(file).read_text(encoding="utf-8")
        names.update(re.findall(r"^    ([a-z]\w+) = \w+\(", source, re.MULTILINE))
    return frozenset(names)


@lru_cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


# -- complete ----------------------------------------------------------------------------------


def test_the_generated_pages_are_up_to_date() -> None:
    late = [str(path.relative_to(ROOT)) for path, _ in generator().stale()]
    assert late == [], "run: python docs/generate.py"


def test_every_option_of_ours_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"^### c\.(\w+\.\w+)$", reference("options"), re.MULTILINE))
    ours = {f"GPUScheduler.{name}" for name in GPUScheduler.class_trait_names(config=True)}
    parts = (
        GPUSpawnerMixin,
        LimitTraits,
        SchedulerLink,
        UserNetworkTraits,
        StorageTraits,
        GPUDockerSpawner,
    )
    for cls in parts:
        ours |= {f"GPUDockerSpawner.{name}" for name in cls.class_own_traits(config=True)}
    swarms = SwarmTraits.class_own_traits(config=True)
    ours |= {f"GPUSwarmSpawner.{name}" for name in swarms}
    inherited = {f"GPUDockerSpawner.{n}" for n in ("mem_limit", "cpu_limit")}
    assert documented == ours - inherited


def test_every_option_named_in_a_page_exists() -> None:
    unknown = {
        f"{name}: c.{section}.{option}"
        for name in NAMES
        for section, option in re.findall(r"\bc\.([A-Z]\w+)\.([a-z]\w+)", read(name))
        if section in {*SECTIONS, "JupyterHub"} and option not in options_of(section)
    }
    assert unknown == set()


def test_every_reason_has_advice_and_stands_in_the_reference() -> None:
    values = {reason.value for reason in Reason}
    assert set(generator().ADVICE) == values
    assert values == set(re.findall(r"^\| `(\w+)` \|", reference("reasons"), re.MULTILINE))


def test_every_reason_named_in_a_page_exists() -> None:
    known = {reason.value for reason in Reason} | {"scheduler_unavailable"}
    text = read("docs/howto/troubleshoot-a-start.md").split("## It waits")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert named and set(named) <= known


def test_every_metric_named_in_a_page_exists() -> None:
    known = set(re.findall(r"^\| `(gpus_\w+)` \|", reference("metrics"), re.MULTILINE))
    named = {m for n in NAMES for m in re.findall(r"\bgpus_[a-z_]+[a-z]\b", read(n))}
    assert named == known


def test_every_address_of_the_service_is_documented() -> None:
    text = reference("rest-internal")
    for pattern, _ in generator().all_routes():
        last = pattern.rpartition("/")[2].replace("\\", "").strip("()").split("|")[0]
        assert last in text, pattern


def environment_of_the_code() -> set[str]:
    """Variables that the code reads: by our prefix, and those that it lists or asks for."""
    folders = ("jupyterhub_gpuspawner", "deploy", "images", "benchmarks", "tests/testbed")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [ROOT / name for name in ("quickstart", "run-tests", "jupyterhub_config.py")]
    found = set()
    for path in files:
        if path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8", errors="replace")
            found |= set(re.findall(r"\bGPUS_[A-Z0-9_]*[A-Z0-9]\b", text))
            found |= set(re.findall(r"environ(?:\.get\(|\[)\"([A-Za-z_]+)\"", text))
    return found


def test_every_environment_variable_is_documented() -> None:
    documented = set(re.findall(r"`([A-Za-z_0-9]+)`", reference("environment")))
    used = environment_of_the_code() | {n for n in images.PROXY_ARGUMENTS if n.islower()}
    # of the machine itself, not of ours
    assert used - documented - {"HOME", "PATH", "USER", "IPYTHONDIR"} == set()


def test_every_variable_of_ours_named_in_a_page_exists() -> None:
    named = {v for n in NAMES for v in re.findall(r"\bGPUS_[A-Z0-9_]*[A-Z0-9]\b", read(n))}
    assert named <= environment_of_the_code()


def test_every_option_of_a_command_is_documented_and_every_documented_one_exists() -> None:
    for script in ("quickstart", "run-tests", "benchmarks/run"):
        code, said = read(script), generator().head(script)
        known = set(re.findall(r"^ +(?:-\w+ \| )?(--[a-z]+)\)", code, re.MULTILINE))
        shown = set(re.findall(r"(?<![\w-])(--[a-z]+)", said))
        assert known - {"--help"} <= shown, script
        named = set(re.findall(rf"\./{script} (--[a-z]+)", "".join(map(read, NAMES))))
        assert named <= shown | {"--help"}, script


@pytest.mark.parametrize("code", list(blocks("bash")))
def test_every_command_of_ours_in_the_pages_is_one_that_there_is(code: str) -> None:
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["jupyterhub-gpuspawner"]:
            # a wrong call ends the program
            cli.parser().parse_args(words[1:])


# -- right -------------------------------------------------------------------------------------


def check_section(name: str, section: Config) -> None:
    """Each option is one of the class, and takes its value."""
    for option in section:
        assert option in options_of(name), f"c.{name}.{option}: there is no such option"
    cls = SECTIONS.get(name)
    if cls is None:
        return
    if issubclass(cls, Authenticator):
        for option, value in section.items():
            cls.class_traits()[option]._validate(cls.__new__(cls), value)
        return
    made = cls(config=Config({name: section}))
    for option in section:
        getattr(made, option)


@pytest.mark.parametrize("code", list(blocks("python")))
def test_every_configuration_in_the_pages_works(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config()
    really = hub.setup

    def setup(c: Any) -> None:
        # the example's folder is not for tests
        c.GPUScheduler.state_dir = str(tmp_path / "gpus")
        really(c)

    monkeypatch.setattr(hub, "setup", setup)
    exec(compile(code, "example", "exec"), {"get_config": lambda: config, "c": config})
    assert config, "the example sets nothing"
    if "setup(c)" in code:
        assert [service["name"] for service in config.JupyterHub.services] == ["gpus"]
        assert (tmp_path / "gpus" / "service-token").stat().st_mode & 0o077 == 0
    for name, section in config.items():
        check_section(name, section)
    profiles = config.GPUDockerSpawner.get("profile_list")
    if profiles:
        assert len(parse_profiles(profiles).items) == len(profiles)


def test_the_example_in_the_readme_has_six_lines() -> None:
    (code,) = [m[3] for m in _FENCE.finditer(read("README.md")) if m[2] == "python"]
    assert len([line for line in code.splitlines() if line]) == 6


@pytest.mark.parametrize("code", list(blocks("bash")))
def test_every_shell_example_names_scripts_that_exist(code: str) -> None:
    for script in re.findall(r"(?:^|\s)\./([\w/-]+)", code):
        assert os.access(ROOT / script, os.X_OK), script


# -- commands: each is run somewhere -------------------------------------------------------------

#: blocks of a site's pages that no test runs; may be lowered
UNRUN = 1
#: what a lab needs on day two
SITE_PAGES = (
    *("log-in", "run-it", "back-up", "use-postgresql", "images", "write-your-own-image"),
    *("volumes", "several-servers", "idle", "offline", "ssh", "doctor"),
)
#: its tests read it by a mark of their own
OTHERS = ("compose",)


@pytest.mark.parametrize(
    "page",
    sorted(path.stem for path in howto.FOLDER.glob("*.md") if path.stem not in OTHERS),
)
def test_every_block_of_commands_names_the_test_that_runs_it_or_why_none_does(page: str) -> None:
    for block in howto.all_blocks(page):
        assert bool(block.by) != bool(block.why), f"say above it what runs it:\n{block.text}"
        if block.by:
            # it takes all blocks of the page that name it
            asks = rf'howto\.(?:blocks|commands)\(\s*"{page}", __file__\s*\)'
            assert re.search(asks, read(block.by)), f"{block.by} does not ask for {page}"


def test_of_a_sites_pages_little_is_not_run() -> None:
    unrun = [block for page in SITE_PAGES for block in howto.all_blocks(page) if not block.by]
    assert len(unrun) <= UNRUN, [block.text for block in unrun]


# -- scheduling: the worked tables are played ---------------------------------------------------


def scenarios() -> Iterator[Any]:
    text = read("docs/explanation/scheduling.md")
    found = re.findall(r"### (.+?)\n\n<!-- world: (.+?) -->\n\n((?:\|.*\n)+)", text)
    for title, world, rows in found:
        settings = {k: int(v) for k, v in (word.split("=") for word in world.split())}
        cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows.splitlines()[2:]]
        yield pytest.param(settings, cells, id=title)


def make_world(
    gpus: int,
    students: int | None = None,
    hours: int = 0,
    course: int = 0,
    booked: int = 0,
    warning: int = 0,
    **limits: int,
) -> World:
    groups = {} if students is None else {"students": students}
    week = 7 * 24 * 3600.0
    budgets: dict[str, Any] = {
        "user_budget": Budget(hours=hours, period=week) if hours else None,
        "group_budgets": {"course": Budget(hours=course, period=week)} if course else {},
    }
    settings = Settings(
        limits=Limits(groups=groups, **limits, **budgets),
        pools={"teaching": ("n*",)},
        reclaim_warning=warning * 60.0 or None,
    )
    world = World(*(gpu(f"g{k}", capability=(8, 0)) for k in range(gpus)), settings=settings)
    if booked:
        world.book("g1", begins=booked * 3600.0)
    return world


_ASKS = re.compile(
    r"(?:(?P<count>\d) )?GPU(?: (?P<name>g\d))?(?:, (?P<memory>\d+) GiB)?(?: of (?P<model>\S+))?"
    r"(?: from (?P<least>\d)\.0)?(?: on (?P<node>n\d))?(?: in (?P<pool>\w+))?"
    r"(?: for (?P<hours>\d+) h)?"
)


def wanted(asks: str) -> dict[str, Any]:
    """What a cell of the tables asks for."""
    match = _ASKS.fullmatch(asks)
    assert match is not None, asks
    said = match.groupdict()
    return {
        "count": int(said["count"] or 1),
        "memory": int(said["memory"] or 0) * GIB,
        "model": said["model"],
        "devices": (said["name"],) if said["name"] else (),
        "min_capability": (int(said["least"]), 0) if said["least"] else None,
        "node": said["node"],
        "pool": said["pool"],
        "length": int(said["hours"]) * 3600.0 if said["hours"] else None,
    }


def play(world: World, who: str, asks: str) -> tuple[str, str]:
    """One row of a table: what became of the user, and why."""
    if asks.endswith(" pass"):
        for lease in list(world.state.tables.leases):
            world.bind(lease)
            world.running(lease)
        world.tick(3600.0 * int(asks[0]))
        return "", ""
    user, *group = re.findall(r"[\w/]+", who) or [""]
    if asks == "stops":
        (lease,) = [i for i, v in world.state.tables.leases.items() if str(v.key) == user]
        world.bind(lease)
        world.end(lease)
        return "", ""
    if asks:
        try:
            world.ask(user, groups=tuple(group), admin="admins" in group, **wanted(asks))
        except RefusedError as error:
            return "refused", error.reason
    waiting = dict(world.line())
    if world.state.settings.reclaim_warning is not None and not asks and user not in waiting:
        return after_its_length(world, user)
    return ("waits", waiting[user].value) if user in waiting else ("granted", "")


def after_its_length(world: World, user: str) -> tuple[str, str]:
    """What has become of a server whose length may be over."""
    world.tick()
    (lease,) = [v for v in world.state.tables.leases.values() if str(v.key) == user]
    if lease.state is LeaseState.STOPPING:
        world.gone(lease.id)
        return "is stopped", str(lease.reason)
    if lease.state is LeaseState.RESERVED:
        return "granted", ""
    return ("is warned" if lease.warned else "stays"), ""


@pytest.mark.parametrize(("settings", "rows"), list(scenarios()))
def test_the_worked_examples_of_scheduling_are_what_the_scheduler_does(
    settings: dict[str, int], rows: list[list[str]]
) -> None:
    world = make_world(**settings)
    for who, asks, result, reason in rows:
        assert play(world, who, asks) == (result, reason), f"{who}: {asks}"


def test_there_are_worked_examples() -> None:
    assert len(list(scenarios())) >= 5


# -- form --------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    text = _FENCE.sub("", read(name))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert "://" not in target, f"{target}: the pages stand on their own"
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("name", [*NAMES, "jupyterhub_config.py", "docs/generate.py"])
def test_no_page_names_a_developers_machine_or_somebody_elses_host(name: str) -> None:
    text = read(name)
    # the last ones are names within a network of containers
    allowed = r"(?!127\.|10\.|172\.17\.|localhost|MIRROR|[\w.]*example\.org|HOST|ADDRESS|\{|host:"
    allowed += r"|(?:hub|proxy|scheduler):)"
    assert re.findall(rf"https?://{allowed}[\w.-]+", text) == []
    # a registry as part of an image's name
    assert re.findall(r"\b[\w-]+\.(?:io|com|cn|dev)/", text) == []
    assert re.findall(r"(?<![\w.}])/(?:home/(?!jovyan|user\b)|root/|Users/|work/)\S*", text) == []


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(read("README.md").splitlines()) <= 120


def test_the_readme_shows_only_pictures_that_are_there() -> None:
    for target in re.findall(r"!\[.*?\]\(([^)]+)\)", read("README.md")):
        assert (ROOT / target).is_file()


def test_every_page_is_reachable_from_the_index() -> None:
    index = read("docs/README.md")
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "README.md":
            assert f"({page.relative_to(DOCS)}" in index, page


def test_everything_that_the_package_offers_is_there_and_documented() -> None:
    offered = re.findall(
        r'^([\w-]+) = "(\w+(?:\.\w+)*):(\w+)"$', read("pyproject.toml"), re.MULTILINE
    )
    (command,) = [(where, what) for name, where, what in offered if name == cli.PROGRAM]
    assert getattr(importlib.import_module(command[0]), command[1]) is cli.main
    spawners = [one for one in offered if one[0] != cli.PROGRAM]
    assert {name for name, _, _ in spawners} == {"gpu-docker", "gpu-swarm"}
    for name, module, cls in spawners:
        assert issubclass(getattr(importlib.import_module(module), cls), GPUSpawnerMixin)
        assert f"`{name}`" in read("CHANGELOG.md")
