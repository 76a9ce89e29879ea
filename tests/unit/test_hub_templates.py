"""Our templates on those of the JupyterHub that is installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jupyterhub._data
import pytest
from bs4 import BeautifulSoup
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader

from jupyterhub_gpuspawner.hub import TEMPLATES

# takes JupyterHub to import
pytestmark = pytest.mark.slow


def admin_page(service: str, *, admin: bool = False, scopes: tuple[str, ...] = ()) -> BeautifulSoup:
    """The Hub's admin page as it sends it. ``service``: the address of ours, "" = not shown."""
    stock = FileSystemLoader(Path(jupyterhub._data.DATA_FILES_PATH) / "templates")
    ours = FileSystemLoader(TEMPLATES)
    loader = ChoiceLoader([PrefixLoader({"templates": stock}, "/"), ours, stock])
    html = (
        Environment(autoescape=True, loader=loader)
        .get_template("admin.html")
        .render(
            user=SimpleNamespace(name="root", admin=admin, json_escaped_name="root"),
            services=[SimpleNamespace(name="gpus", href=service)] if service else [],
            parsed_scopes=dict.fromkeys(scopes),
            expanded_scopes=set(scopes),
            static_url=lambda path, **_: f"/hub/static/{path}",
            base_url="/hub/",
            no_spawner_check=True,
        )
    )
    return BeautifulSoup(html, "html.parser")


@pytest.mark.parametrize(
    "who", [{"admin": True}, {"scopes": ("admin-ui", "custom:gpus:read")}], ids=["admin", "reader"]
)
def test_the_hubs_admin_page_leads_to_ours_and_is_there_itself(who: dict[str, bool]) -> None:
    page = admin_page("/base/services/gpus/", **who)
    assert page.select_one("#gpus-admin a")["href"] == "/base/services/gpus/admin"
    scripts = [one.get("src") for one in page.select("script")]
    assert "/base/services/gpus/static/hubadmin.js" in scripts
    assert page.select_one("#react-admin-hook script#jupyterhub-admin-config")


def test_a_service_on_a_host_of_its_own_is_linked_and_not_asked() -> None:
    page = admin_page("//gpus.example.org/services/gpus/", admin=True)
    assert page.select_one("#gpus-admin a")["href"].startswith("//gpus.example.org/")
    assert "hubadmin.js" not in str(page)


def test_who_may_not_see_whose_the_gpus_are_gets_the_hubs_page_as_it_was() -> None:
    for page in (admin_page("/services/gpus/", scopes=("admin-ui",)), admin_page("", admin=True)):
        assert page.select_one("#react-admin-hook")
        assert not page.select("#gpus-admin") and "hubadmin" not in str(page)
