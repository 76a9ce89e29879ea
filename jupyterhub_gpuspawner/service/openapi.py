"""The OpenAPI document of the API, made from its table of operations. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from .. import __version__
from .api_models import MOST, Error
from .scopes import ADMIN, READ

#: what varies in an address
ID = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"
_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number in the query."""

    name: str
    about: str
    default: int
    least: int = 0
    most: int

    def schema(self) -> dict[str, Any]:
        """What it may be."""
        bounds = {"minimum": self.least, "maximum": self.most}
        return {"type": "integer", **bounds, "default": self.default}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One of a few words in the query."""

    name: str
    about: str
    allowed: tuple[str, ...]

    @property
    def default(self) -> str:
        """The first one."""
        return self.allowed[0]

    def schema(self) -> dict[str, Any]:
        """What it may be."""
        return {"type": "string", "enum": list(self.allowed), "default": self.default}


LIMIT = Number(name="limit", about="most items of the answer", default=100, least=1, most=MOST)
OFFSET = Number(name="offset", about="items to skip", default=0, most=10**9)
AFTER = Number(name="after", about="'next' of the part before", default=0, most=2**62)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One thing that the API does."""

    #: lower case
    method: str
    #: below ``api/``, with ``{name}`` for what varies
    path: str
    summary: str
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    query: tuple[Number | Choice, ...] = ()
    #: the answer is a table as text, and ``answer`` one of its rows
    csv: bool = False
    #: for who may see everybody's
    reads_all: bool = False
    #: for who may act for an admin
    acts: bool = False
    #: the scheduler may say no to what is right in itself
    refuses: bool = False

    @property
    def scope(self) -> str:
        """The scope that a token needs; empty = access to the service is enough."""
        return ADMIN if self.acts else READ if self.reads_all else ""


def document(operations: Iterable[Operation], prefix: str) -> dict[str, Any]:
    """The document, as JSON data. ``prefix``: of the service, such as ``/services/gpus/``."""
    operations = list(operations)
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Error, "serialization")]
    for one in operations:
        wanted.append((one.answer, "serialization"))
        if one.body is not None:
            wanted.append((one.body, "validation"))
    names, schemas = models_json_schema(wanted, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        answer = {} if one.csv else _json(names[one.answer, "serialization"])
        said = _operation(one, answer or {"content": {"text/csv": {"schema": {"type": "string"}}}})
        if one.body is not None:
            said["requestBody"] = {"required": True, **_json(names[one.body, "validation"])}
        paths.setdefault(f"/{one.path}", {})[one.method] = said
    return {
        "openapi": "3.1.0",
        "info": {"title": "GPUs of this JupyterHub", "version": __version__},
        "servers": [{"url": f"{prefix}api"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token TOKEN`: one of the Hub's, with access to the service, "
                    f"`{READ}` or `{ADMIN}`; or the service token.",
                }
            },
        },
    }


def _operation(one: Operation, answer: dict[str, Any]) -> dict[str, Any]:
    refusals = {"400": "wrong input", "403": "not allowed", "503": "the ledger can't be read now"}
    if one.refuses:
        refusals["409"] = "the scheduler says no; the message says why"
    if "{" in one.path:
        refusals["404"] = "there is no such thing"
    error = _json({"$ref": _REF.format(model="Error")})
    scope = f" Needs `{one.scope}`." if one.scope else ""
    return {
        "summary": one.summary,
        "description": f"{one.summary}{scope}",
        "parameters": [*map(_in_path, _varying(one.path)), *map(_in_query, one.query)],
        "responses": {
            "200": {"description": "it worked", **answer},
            **{code: {"description": why, **error} for code, why in refusals.items()},
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _varying(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _in_path(name: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^{ID}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(one: Number | Choice) -> dict[str, Any]:
    return {"name": one.name, "in": "query", "description": one.about, "schema": one.schema()}
