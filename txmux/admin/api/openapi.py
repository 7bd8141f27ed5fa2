"""``/api/openapi.json``: the API for programs that read such descriptions (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

from txmux.admin.api.schemas import COUNT, SCHEMAS, TEXT, TRUTH, array_of, ref
from txmux.admin.resource import Answer, Query, Resource
from txmux.telemetry.states import STATES
from txmux.version import __version__

__all__ = ["description"]

_DURATION = {"type": "string", "pattern": "^[0-9]{1,6}(ms|s|m|h|d)$"}
_FILTERS: dict[str, dict[str, Any]] = {
    **{
        name: {"type": "string", "minLength": 1}
        for name in ("listener", "route", "backend", "server")
    },
    "client": {"type": "string", "description": "a network or an address, or unix"},
    "state": {"type": "string", "enum": list(STATES)},
    "older": {**_DURATION, "description": "a duration: 30s, 1h"},
}


def _body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _gives(schema: dict[str, Any], what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


_REFUSALS = {
    400: "a parameter, the path or the body cannot be read",
    401: "the token is missing or wrong",
    403: "the Host or the Origin is not this endpoint's",
    404: "there is no such thing",
    405: "the path has another method",
    408: "the request has not arrived in time",
    409: "the change was refused",
    413: "the body is too long",
    415: "the body is not said to be JSON",
    422: "the change was refused",
    429: "there were too many wrong tokens",
    431: "a line of the request is too long",
    501: "a part of txmux is not installed",
}


def _operation(
    summary: str,
    schema: dict[str, Any],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe an operation that answers with 200 and a value, or refuses."""
    refusals = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": _gives(schema, summary), **refusals, **(more or {})},
    }
    if parameters:
        found["parameters"] = parameters
    if body:
        found["requestBody"] = body
    return found


def _in_path(name: str, what: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": what, "schema": schema}


def _in_query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _fields(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_ID = _in_path("id", "as in the access log")
_PAGE = [
    _in_query("limit", {"type": "integer", "minimum": 1, "maximum": 10_000}),
    _in_query("after", {"type": "string", "pattern": "^[0-9a-f]{1,32}-[0-9a-f]{1,32}$"}),
]
_NOTHING = _body(_fields(), required=False)

_PATHS: dict[str, dict[str, Any]] = {
    "/healthz": {"get": _operation("the process is up", {"type": "object"})},
    "/readyz": {
        "get": _operation(
            "clients are served",
            ref("Ready"),
            more={"503": _gives(ref("Ready"), "something is missing for that")},
        )
    },
    "/api/status": {"get": _operation("the state of the service", ref("Status"))},
    "/api/connections": {
        "get": _operation(
            "live connections",
            array_of(ref("Connection")),
            parameters=[*(_in_query(name, one) for name, one in _FILTERS.items()), *_PAGE],
        )
    },
    "/api/connections/{id}": {
        "get": _operation(
            "one live connection, and how it was decided",
            ref("ExplainedConnection"),
            parameters=[_ID],
        )
    },
    "/api/connections/{id}/close": {
        "post": _operation("end a connection", ref("Closed"), parameters=[_ID], body=_NOTHING)
    },
    "/api/connections/close": {
        "post": _operation(
            "end all connections that the filters mean",
            ref("Closed"),
            body=_body({**_fields(**_FILTERS), "minProperties": 1}),
        )
    },
    "/api/routes": {"get": _operation("what routes have taken", array_of(ref("Route")))},
    "/api/backends": {"get": _operation("how servers are", array_of(ref("Backend")))},
    "/api/recent": {
        "get": _operation("the last connections that ended with an error", array_of(ref("End")))
    },
    "/api/rules": {"get": _operation("the rules as they were read", array_of(ref("File")))},
    "/api/events": {
        "get": {
            "summary": "events as they happen",
            "responses": {
                "200": {
                    "description": "a stream that ends with the service",
                    "content": {"text/event-stream": {"schema": TEXT}},
                }
            },
        }
    },
    "/api/explain": {
        "post": _operation(
            "what listeners make of bytes",
            ref("Explanation"),
            body=_body(
                {
                    **_fields(listener=TEXT, hex=TEXT, text=TEXT, **{"from": TEXT}),
                    "oneOf": [{"required": ["hex"]}, {"required": ["text"]}],
                }
            ),
        )
    },
    "/api/backends/{backend}/servers/{server}": {
        "post": _operation(
            "take a server out of use, or back",
            ref("Done"),
            parameters=[
                _in_path("backend", "its name"),
                _in_path("server", "as the rules write it"),
            ],
            body=_body(
                {
                    **_fields(
                        state={"type": "string", "enum": ["ready", "drain", "maintenance"]},
                        weight={
                            "anyOf": [{**COUNT, "minimum": 1, "maximum": 65535}, {"type": "null"}]
                        },
                        close_connections=TRUTH,
                    ),
                    "minProperties": 1,
                }
            ),
        )
    },
    "/api/listeners/{name}": {
        "post": _operation(
            "accept the clients of a listener, or leave them in its queue",
            ref("Done"),
            parameters=[_in_path("name", "the listener's")],
            body=_body({**_fields(accepting=TRUTH), "required": ["accepting"]}),
        )
    },
    "/api/bans": {
        "get": _operation("who may not come in", array_of(ref("Ban"))),
        "post": _operation(
            "let nobody of a network come in",
            ref("Done"),
            body=_body(
                {
                    **_fields(network=TEXT, seconds={**COUNT, "minimum": 1}, reason=TEXT),
                    "required": ["network"],
                }
            ),
        ),
    },
    "/api/bans/remove": {
        "post": _operation(
            "take a ban back",
            ref("Done"),
            body=_body({**_fields(network=TEXT), "required": ["network"]}),
        )
    },
    "/api/reload": {"post": _operation("read the rules again", ref("Done"), body=_NOTHING)},
    "/api/upgrade": {"post": _operation("go on in a new process", ref("Done"), body=_NOTHING)},
    "/api/stop": {"post": _operation("begin to stop", ref("Done"), body=_NOTHING)},
    "/api/openapi.json": {"get": _operation("this description", {"type": "object"})},
}


def description() -> dict[str, Any]:
    """Return the description of the API."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The API of a running txmux service",
            "version": __version__,
            "description": "The reference has more about each answer.",
        },
        "security": [{"token": []}, {}],
        "paths": _PATHS,
        "components": {
            "schemas": SCHEMAS,
            "responses": {
                str(status): _gives(ref("Error"), why) for status, why in _REFUSALS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


async def _description(_: Query) -> Answer:
    return Answer.json(description())


RESOURCES = (Resource("GET", "/api/openapi.json", _description),)

if __name__ == "__main__":
    import json

    print(json.dumps(description(), indent=1))  # noqa: T201 - for the documentation
