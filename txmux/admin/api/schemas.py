"""What the answers and bodies of the API look like, as JSON Schema (draft 2020-12). Pure."""

from __future__ import annotations

from typing import Any, get_args

from txmux.telemetry.reasons import EndReason
from txmux.telemetry.states import STATES

__all__ = ["SCHEMAS", "array_of", "ref"]

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
FACTS: Schema = {"type": "object", "additionalProperties": TEXT}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def array_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Schema) -> Schema:
    """Describe an object that has all of these, and maybe more in later versions."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _and_maybe(schema: Schema, **properties: Schema) -> Schema:
    """Describe an object that may have these, too."""
    return {**schema, "properties": {**schema["properties"], **properties}}


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


_RECORD: dict[str, Schema] = {
    "time": TEXT,
    "id": TEXT,
    "listener": TEXT,
    "client": TEXT,
    "local": _or_null(TEXT),
    "route": _or_null(TEXT),
    "backend": _or_null(TEXT),
    "server": _or_null(TEXT),
    "server_local": _or_null(TEXT),
    "bytes_in": COUNT,
    "bytes_out": COUNT,
    "detect_ms": _or_null(NUMBER),
    "connect_ms": _or_null(NUMBER),
    "duration_ms": _or_null(NUMBER),
    "reason": _words(*get_args(EndReason)),
    "facts": FACTS,
}

_NUMBER: Schema = {"type": "integer", "minimum": 1}
_WORKER = _or_null(_NUMBER)

_CONNECTION: dict[str, Schema] = {
    **{
        name: _RECORD[name]
        for name in ("id", "listener", "client", "local", "route", "backend", "server")
    },
    "state": _words(*STATES),
    "age_ms": NUMBER,
    "idle_ms": NUMBER,
    "bytes_in": COUNT,
    "bytes_out": COUNT,
    "generation": COUNT,
    "worker": _WORKER,
    "facts": FACTS,
}

_DATAGRAMS: dict[str, Schema] = {"datagrams_in": COUNT, "datagrams_out": COUNT}
"""What only flows of UDP have."""

_LINE: dict[str, Schema] = {
    "match": TEXT,
    "says": _or_null(TEXT),
    "at": _or_null(COUNT),
    "needs_up_to": _or_null(COUNT),
    "error": _or_null(TEXT),
}

_ROUTE_ANSWER: dict[str, Schema] = {
    "route": TEXT,
    "says": _words("match", "no", "undecided", "not asked", "unknown"),
    "at": _or_null(COUNT),
    "needs_up_to": _or_null(COUNT),
    "error": _or_null(TEXT),
    "excluded_by": _or_null(_words("from", "not_from", "during")),
    "dry_run": TRUTH,
    "lines": array_of(_object(**_LINE)),
}

_LEADS = _or_null(
    _object(
        at=_or_null(COUNT),
        by=_words("route", "default", "silent", "denied"),
        route=_or_null(TEXT),
        to=_or_null(TEXT),
        servers=array_of(TEXT),
    )
)

_ROUTE_COUNTS: dict[str, Schema] = {
    "matches": COUNT,
    "dry_run_matches": COUNT,
    "active": COUNT,
    "bytes_in": COUNT,
    "bytes_out": COUNT,
    "last_match": _or_null(NUMBER),
}

_CHECK = _or_null(
    _object(ok=TRUTH, last=NUMBER, duration_ms=NUMBER, result=TEXT, history=array_of(TRUTH))
)
_SERVER_STATE = _words(
    *("up", "down", "ejected", "probing", "disabled", "drain", "maintenance", "unresolved")
)
_FOUND: dict[str, Schema] = {
    "state": _SERVER_STATE,
    "why": TEXT,
    "since": _or_null(NUMBER),
    "weight": COUNT,
    "check": _CHECK,
}

SCHEMAS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {"error": TEXT, "errors": array_of(TEXT)},
        "required": ["error"],
    },
    "Done": _object(ok=TRUTH, changes=TEXT),
    "Closed": _object(ok=TRUTH, changes=TEXT, closed=COUNT),
    "Connection": _and_maybe(_object(**_CONNECTION), **_DATAGRAMS),
    "ExplainedConnection": _and_maybe(
        _object(**_CONNECTION, explanation=_or_null(ref("Decision"))), **_DATAGRAMS
    ),
    "Decision": _object(
        listener=TEXT,
        by=_or_null(_words("route", "default", "silent")),
        route=_or_null(TEXT),
        bytes=_or_null(COUNT),
        facts=FACTS,
        routes=array_of(_object(**_ROUTE_ANSWER, inside=_or_null(TEXT))),
        **{"from": _or_null(TEXT)},
    ),
    "Explanation": _object(
        rules=TEXT,
        streams=array_of(
            _object(
                client=_or_null(TEXT),
                server=_or_null(TEXT),
                bytes=COUNT,
                datagrams=_or_null(array_of(COUNT)),
                gap=TRUTH,
                server_first=TRUTH,
                listeners=array_of(
                    _object(
                        listener=TEXT,
                        time=TEXT,
                        routes=array_of(_object(**_ROUTE_ANSWER)),
                        decision=_LEADS,
                        at_deadline=_LEADS,
                        facts=FACTS,
                        **{"from": _or_null(TEXT)},
                    )
                ),
            )
        ),
    ),
    "Route": _object(
        name=TEXT,
        **_ROUTE_COUNTS,
        under=array_of(TEXT),
        backend=_or_null(TEXT),
        dry_run=TRUTH,
        ends_tls=TRUTH,
        listeners=array_of(_object(listener=TEXT, **_ROUTE_COUNTS)),
        file=_or_null(TEXT),
        line=_or_null(COUNT),
        rule=TEXT,
    ),
    "Backend": _object(
        name=TEXT,
        servers=array_of(
            _object(
                server=TEXT,
                **_FOUND,
                backup=TRUTH,
                active=COUNT,
                total=COUNT,
                failed=COUNT,
                failures={"type": "object", "additionalProperties": COUNT},
                addresses=array_of(_object(address=TEXT, **_FOUND)),
            )
        ),
    ),
    "Ban": _object(network=TEXT, since=NUMBER, until=_or_null(NUMBER), reason=TEXT),
    "End": {
        **_and_maybe(_object(**_RECORD, ended=NUMBER, worker=_WORKER), **_DATAGRAMS),
        "description": "With `first`, bytes in hex, if no route took the client.",
    },
    "File": _object(
        file=TEXT, text=TEXT, sections=array_of(_object(name=TEXT, line=COUNT, text=TEXT))
    ),
    "Status": _object(
        version=TEXT,
        pid=COUNT,
        started=_or_null(NUMBER),
        generation=COUNT,
        workers=array_of(
            _and_maybe(
                _object(
                    number=_NUMBER,
                    worker=_NUMBER,
                    pid=COUNT,
                    ready=TRUTH,
                    retiring=TRUTH,
                    sandbox=TRUTH,
                    connections=_or_null(COUNT),
                ),
                generation=COUNT,
                active=COUNT,
                undecided=COUNT,
                older=COUNT,
            )
        ),
        listeners=array_of(_object(name=TEXT, accepting=TRUTH)),
        connections=_object(active=COUNT, undecided=COUNT, limit=COUNT),
        last_reload=_or_null(_object(time=NUMBER, ok=TRUTH, changes=TEXT, errors=array_of(TEXT))),
        draining=TRUTH,
        rules_path=TEXT,
        rules_sha256=TEXT,
        descriptors=_object(open=COUNT, max=COUNT),
        certificates=array_of(_object(route=TEXT, file=TEXT, expires=NUMBER)),
        bans=_object(active=COUNT, shared=_or_null(TEXT)),
        attention=array_of(TEXT),
    ),
    "Ready": _object(ready=TRUTH, missing=array_of(TEXT), stale=array_of(TEXT)),
}
