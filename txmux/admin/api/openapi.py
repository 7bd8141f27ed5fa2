"""The API for programs that read such descriptions (OpenAPI 3.1): made from the resources and the types of their answers."""

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from txmux.admin.resource import LACKS, Resource
from txmux.control.connection_row import FIELDS, Positive
from txmux.detection.explain import ExcludingKey
from txmux.telemetry.record import ConnectionRecord
from txmux.version import __version__

_CONNECTION = {f"{field.name}{'?' * field.is_optional}": field.type for field in FIELDS}
_RECORD = get_type_hints(ConnectionRecord)
# fmt: off
_END = {
    **{name: _RECORD[name] for name in _RECORD if not name.startswith("datagrams_")}, "time": str,
    "reason": get_args(_RECORD["reason"])[0], "datagrams_in?": int, "datagrams_out?": int,
    "ended": float, "worker": Positive | None,
}
_LINE = {
    "match": str, "says": str | None, "at": int | None, "needs_up_to": int | None,
    "error": str | None,
}
_ROUTE_ANSWER = {
    "route": str, "says": Literal["match", "no", "undecided", "not asked", "unknown"],
    "at": int | None, "needs_up_to": int | None, "error": str | None,
    "excluded_by": ExcludingKey | None, "dry_run": bool, "lines": [_LINE],
}
_ROUTE_COUNTS = {
    "matches": int, "dry_run_matches": int, "active": int, "bytes_in": int, "bytes_out": int,
    "last_match": float | None,
}
# fmt: on
_REFUSALS = {
    400: "invalid parameter, path or body",
    401: "the token is missing or wrong",
    403: "the caller's right is too low, or the Host or Origin header does not match this endpoint",
    404: "not found",
    405: "method not allowed",
    408: "the request has not arrived in time",
    409: "the change was refused",
    413: "the body is too long",
    415: "the Content-Type is not application/json",
    422: "the change was refused",
    429: "there were too many wrong tokens",
    431: "a line of the request is too long",
    501: "a part of txmux is not installed",
}
_MORE = {("/readyz", "503"): "something is missing for that"}
"""Other statuses of a path with the same answer as 200."""
_IN_PATH = {
    "id": "as in the access log",
    "backend": "its name",
    "server": "as the rules write it",
    "certificate": "one of its names",
    "name": "the listener's",
}


class Schema(dict[str, Any]):
    """A schema of a value (JSON Schema, draft 2020-12)."""


def ref(name: str) -> Schema:
    return Schema({"$ref": f"#/components/schemas/{name}"})


_SIMPLE: dict[Any, Schema] = {
    str: Schema(type="string"),
    float: Schema(type="number"),
    int: Schema(type="integer", minimum=0),
    bool: Schema(type="boolean"),
    type(None): Schema(type="null"),
    object: Schema(type="object"),
}


def schema_of(form: Any) -> Schema:  # noqa: PLR0911 - one for each kind of form
    """Describe a value.

    Args:
        form: A type as in Python, where an ``int`` has no sign, and ``Annotated[int, 1, 9]`` has bounds; a tuple of words; a list of
            what an array has; a dict of what an object has, to which later versions may add, and of which those with a ``?`` may be
            missing; or a `Schema`.
    """
    if isinstance(form, Schema):
        return form
    if isinstance(form, tuple):
        return Schema(type="string", enum=[*form])
    if isinstance(form, list):
        return Schema(type="array", items=schema_of(form[0]))
    if isinstance(form, dict):
        fields = {name.rstrip("?"): schema_of(value) for name, value in form.items()}
        required = [name for name in form if not name.endswith("?")]
        return Schema(type="object", properties=fields, required=required)
    kind, inner = get_origin(form), get_args(form)
    if kind in {Union, types.UnionType}:
        return Schema(anyOf=[schema_of(alternative) for alternative in inner])
    if kind is Literal:
        return schema_of(inner)
    if kind is Annotated:
        bounds = zip(("minimum", "maximum"), form.__metadata__, strict=False)
        return Schema(schema_of(form.__origin__) | dict(bounds))
    if kind is dict:
        return Schema(type="object", additionalProperties=schema_of(inner[1]))
    return _SIMPLE[form]


def _or_null(form: Any) -> Schema:
    return Schema(anyOf=[schema_of(form), schema_of(type(None))])


def body(fields: Mapping[str, Any], **more: Any) -> Schema:
    """Describe the body of a request, which has these fields and no others; `more` are further keywords of JSON Schema."""
    properties = {name: schema_of(form) for name, form in fields.items()}
    return Schema(type="object", properties=properties, additionalProperties=False, **more)


# fmt: off
_TARGET = _or_null({
    "at": int | None, "by": Literal["route", "default", "silent", "denied", "tls-failed"],
    "route": str | None,
    "to": str | None, "servers": [str],
})
_SERVER_STATE = {
    "state": Literal["up", "down", "failing", "silent", "ejected", "probing", "disabled", "drain", "maintenance", "unresolved"],
    "why": str, "since": float | None, "weight": int, "effective_weight": float,
    "check": _or_null({
        "ok": bool, "last": float, "duration_ms": float, "result": str, "history": [bool],
    }),
}

_FORMS: dict[str, Any] = {
    "Error": {"error": str, "errors?": [str]},
    "Done": {"ok": bool, "changes": str},
    "Closed": {"ok": bool, "changes": str, "closed": int, "incomplete?": [str]},
    "Upgraded": {
        "ok": bool, "changes": str, "moved": int, "stays": dict[str, int], "until": float | None,
        "complete": bool,
    },
    "UpgradeCheck": {
        "ok": bool, "changes": str, "ready": bool, "refusals": [str], "moves": int, "stays": dict[str, int],
        "until": float | None, "incomplete": [str],
    },
    "Connection": _CONNECTION,
    "ExplainedConnection": {**_CONNECTION, "explanation": _or_null(ref("Decision"))},
    "Decision": {
        "listener": str, "from": str | None, "by": Literal["route", "default", "silent"] | None,
        "route": str | None, "bytes": int | None, "facts": dict[str, str],
        "routes": [{**_ROUTE_ANSWER, "inside": str | None}],
    },
    "Explanation": {
        "rules": str,
        "streams": [{
            "client": str | None, "server": str | None, "bytes": int, "datagrams": _or_null([int]),
            "gap": bool, "server_first": bool,
            "listeners": [{
                "listener": str, "from": str | None, "time": str, "routes": [_ROUTE_ANSWER],
                "decision": _TARGET, "at_deadline": _TARGET, "facts": dict[str, str],
            }],
        }],
    },
    "Route": {
        "name": str, **_ROUTE_COUNTS, "under": [str], "backend": str | None, "dry_run": bool,
        "ends_tls": bool, "tunnel": bool, "listeners": [{"listener": str, **_ROUTE_COUNTS}], "file": str | None,
        "line": int | None, "rule": str,
    },
    "Backend": {
        "name": str, "hold": _or_null({"until": float | None}), "held": int,
        "servers": [{
            "server": str, **_SERVER_STATE, "checked": bool, "backup": bool, "active": int,
            "total": int, "failed": int, "failures": dict[str, int], "rate": float,
            "bytes_in": int, "bytes_out": int, "first_byte_ms": float | None,
            "last_failure": _or_null({"time": float, "cause": str}),
            "addresses": [{"address": str, **_SERVER_STATE}],
        }],
    },
    "Client": {
        "source": str, "active": int, "connections": int, "rate": float, "bytes_in": int,
        "bytes_out": int, "refused": int, "unrecognised": int, "since": float,
    },
    "Certificate": {
        "route": str, "names": [str], "issuer": str, "not_after": float,
        "next_renewal": float | None, "is_self_signed": bool, "acme": bool, "file": str,
    },
    "Ban": {"network": str, "since": float, "until": float | None, "reason": str},
    "End": Schema(schema_of(_END) | {
        "description": "With `first`, bytes in hex, if no route took the client.",
    }),
    "File": {"file": str, "text": str, "sections": [{"name": str, "line": int, "text": str}]},
    "Status": {
        "version": str, "pid": int, "started": float | None, "generation": int,
        "workers": [{
            "number": Positive, "worker": Positive, "pid": int, "ready": bool, "retiring": bool,
            "sandbox": bool, "connections": int | None, "generation?": int, "active?": int,
            "undecided?": int, "older?": int,
        }],
        "listeners": [{
            "name": str, "starttls": str | None, "accepting": bool, "why": str,
            "ech?": {
                "keys": [{"id": int, "public_name": str, "written": float}],
                "opened": int, "unopened": int,
            },
        }],
        "connections": {
            "active": int, "undecided": int,
            "unrouted": {"ended": int, "bytes_in": int, "bytes_out": int}, "limit": int,
        },
        "last_reload": _or_null({"time": float, "ok": bool, "changes": str, "errors": [str]}),
        "draining": bool, "rules_path": str, "rules_sha256": str,
        "descriptors": {"open": int, "max": int},
        "certificates": [{"route": str, "file": str, "expires": float}],
        "bans": {"active": int, "shared": str | None},
        "sources": [{"source": str, "up": bool, "age": float | None, "why": str}],
        "attention": [{
            "level": str, "what": str, "text": str, "cause": str, "since": float | None,
            "do": str, "link": str,
        }],
        "incomplete": [str],
    },
    "Ready": {"ready": bool, "missing": [str], "stale": [str]},
}
# fmt: on

SCHEMAS = {name: schema_of(form) for name, form in _FORMS.items()}


_INCOMPLETE = {
    LACKS: {
        "description": "Only where the answer lacks the part of a worker: which, and why.",
        "schema": schema_of(str),
    }
}


def _answer(what: str, schema: Schema, type_: str = "application/json") -> dict[str, Any]:
    return {"description": what, "content": {type_: {"schema": schema}}}


def _operation(resource: Resource) -> dict[str, Any]:
    if resource.is_stream:
        what = "a stream that ends with the service"
        return {
            "summary": resource.summary,
            "responses": {"200": _answer(what, schema_of(str), "text/event-stream")},
        }
    gives = ref("Done") if resource.gives is None else resource.gives
    schema = schema_of(gives)
    refusals = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS}
    more = {
        status: _answer(why, schema) for (p, status), why in _MORE.items() if p == resource.path
    }
    headers = {"headers": _INCOMPLETE} if resource.may_lack else {}
    operation: dict[str, Any] = {
        "summary": resource.summary,
        "responses": {"200": _answer(resource.summary, schema) | headers, **refusals, **more},
    }
    parameters = [
        _parameter(name, "path", Schema(type="string", minLength=1))
        | {"required": True, "description": _IN_PATH[name]}
        for name in resource.variables
    ]
    parameters += [_parameter(name, "query", form) for name, form in resource.parameters.items()]
    if parameters:
        operation["parameters"] = parameters
    if resource.method == "POST":
        required = resource.takes is not None
        content = {"application/json": {"schema": resource.takes if required else body({})}}
        operation["requestBody"] = {"required": required, "content": content}
    return operation


def _parameter(name: str, location: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": location, "schema": schema}


def description(resources: Iterable[Resource]) -> dict[str, Any]:
    """Describe the API as far as it is for programs: resources without a summary are for browsers."""
    paths: dict[str, dict[str, Any]] = {}
    for resource in sorted(resources, key=lambda resource: (resource.path, resource.method)):
        if resource.summary:
            paths.setdefault(resource.path, {})[resource.method.lower()] = _operation(resource)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The API of a running txmux service",
            "version": __version__,
            "description": "The reference has more about each answer.",
        },
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": {
                str(status): _answer(why, ref("Error")) for status, why in _REFUSALS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
