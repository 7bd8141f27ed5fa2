"""What a service reports: its health, metrics, status, routes, backends, ends, events and rules, and how listeners decide on given bytes."""

import weakref
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import attrs

from txmux.admin import resource
from txmux.admin.api.openapi import Schema, body
from txmux.admin.encoding import BY_NAME, incomplete, listed, part_of
from txmux.admin.guard import RefusedError
from txmux.admin.resource import ApiAnswer, Query, ResourceList
from txmux.control.conditions import Coalescer
from txmux.control.control import Control
from txmux.control.documents import rules_document
from txmux.control.rules_index import known_backend
from txmux.matchers.payload import bytes_from_hex, bytes_from_text
from txmux.net.turns import in_thread
from txmux.telemetry import documents
from txmux.telemetry.attention import OF_FEW
from txmux.telemetry.formatting import printable_json

_MOST_WAITING = 256 * 1024  # bytes buffered for a client before it is cut off

_expositions: weakref.WeakKeyDictionary[Control, Coalescer[bytes]] = weakref.WeakKeyDictionary()

HEALTH = ResourceList()
METRICS = ResourceList()
RESOURCES = ResourceList()


@RESOURCES.get("/api/status", "the state of the service", documents.StatusDocument, may_lack=True)
async def _status(query: Query) -> ApiAnswer:
    status = await query.control.status()
    return await listed(status, incomplete(status["incomplete"]))


@HEALTH.get("/healthz", "the process is up", object, is_of_process=True)
async def _is_up(_: Query) -> ApiAnswer:
    return ApiAnswer.json({"ok": True})


@HEALTH.get("/readyz", "clients are served", documents.Ready)
async def _is_ready(query: Query) -> ApiAnswer:
    missing = await query.control.missing()
    is_ready = all(line.endswith(OF_FEW) for line in missing)
    answer = {"ready": is_ready, "missing": missing, "stale": query.control.stale()}
    return ApiAnswer.json(answer, 200 if is_ready else 503)


@METRICS.get("/metrics")
async def _metrics(query: Query) -> ApiAnswer:
    try:
        from txmux.admin.metrics import CONTENT_TYPE  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise resource.needs("metrics") from missing
    expositions = _expositions.get(query.control)
    if expositions is None:
        expositions = _expositions[query.control] = _expositions_of(query.control)
    return ApiAnswer(await expositions.request(), CONTENT_TYPE)


def _expositions_of(control: Control) -> Coalescer[bytes]:
    """Make what all clients of a service share; it keeps no reference to the service."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    from txmux.admin.metrics import exposition  # noqa: PLC0415 - an extra

    reference = weakref.ref(control)

    async def make() -> bytes:
        service = reference()
        assert service is not None  # noqa: S101 - the client has it
        reports = await service.ask()
        counts = await service.counts(reports)
        backends = await service.backends(counts, reports.addresses)
        needed = await service.attention(reports, backends)
        counts = attrs.evolve(counts, attention=needed)
        # With thousands of routes it takes so long that clients would wait for it.
        return await in_thread(exposition, counts, backends)

    return Coalescer(make, reactor)


@RESOURCES.get(
    "/api/certificates",
    "the certificates that clients are shown",
    list[documents.CertificateDocument],
    may_lack=True,
)
async def _certificates(query: Query) -> ApiAnswer:
    return await listed(await query.control.certificates())


@RESOURCES.get(
    "/api/routes",
    "the routes, with their counters",
    list[documents.RouteDocument],
    parameters=BY_NAME,
    may_lack=True,
)
async def _routes(query: Query) -> ApiAnswer:
    control = query.control
    part, headers = part_of(query, "/api/routes", [*control.index.positions])
    rows, missing = await control.routes(part)
    return await listed(rows, {**headers, **incomplete(missing)})


@RESOURCES.get(
    "/api/backends",
    "the backends, with the state of their servers",
    list[documents.BackendDocument],
    parameters={**BY_NAME, "backend": Schema(type="string", description="only this one")},
    may_lack=True,
)
async def _backends(query: Query) -> ApiAnswer:
    index, headers = query.control.index, dict[str, str]()
    if "backend" in query.parameters:
        words = resource.only_values(query.parameters)
        resource.check_names(words, ["backend"])
        names = [known_backend(index, words["backend"]).name]
    else:
        part, headers = part_of(query, "/api/backends", names := [*index.backends])
        names = names[part]
    return await listed(await query.control.backends(of=names), headers)


@RESOURCES.get(
    "/api/recent", "the last connections that ended with an error", list[documents.EndDocument]
)
async def _recent(query: Query) -> ApiAnswer:
    return ApiAnswer.json(query.control.recent_failures())


@RESOURCES.get("/api/events", "events as they happen", is_stream=True)
async def _events(query: Query) -> ApiAnswer:
    def is_admitted() -> bool:
        return query.guard.still_admits(query.caller)

    def begin(stream: resource.AnswerStream) -> None:
        def send(event: dict[str, Any] | None) -> None:
            if stream.unsent_bytes() > _MOST_WAITING or not is_admitted():
                stream.abort()
            elif event is None:
                stream.write(b": still here\n\n")
            else:
                data = printable_json(event)
                stream.write(f"event: {event['event']}\ndata: {data}\n\n".encode())
                if event["event"] == "stop":
                    stream.finish()

        stream.on_end(query.control.events.subscribe(send))

    return ApiAnswer(type="text/event-stream", stream=begin)


@RESOURCES.post(
    "/api/explain",
    "how listeners decide on given bytes",
    documents.ExplanationDocument,
    takes=body(
        dict.fromkeys(("listener", "hex", "text", "from"), str),
        oneOf=[{"required": ["hex"]}, {"required": ["text"]}],
    ),
)
async def _explain(query: Query) -> ApiAnswer:
    body = query.body
    explanation = await query.control.explain(_bytes(body), body.get("listener"), _from(body))
    return await listed(explanation)


def _bytes(body: Mapping[str, Any]) -> bytes:
    if ("hex" in body) == ("text" in body):
        raise RefusedError(400, "give the bytes as either 'hex' or 'text'")
    if "hex" in body:
        return bytes_from_hex("hex", body["hex"])
    return bytes_from_text(body["text"])


def _from(body: Mapping[str, Any]) -> IPv4Address | IPv6Address | None:
    address = body.get("from")
    try:
        return None if address is None else ip_address(address)
    except ValueError:
        message = "from: is not an IP address; write one as 192.0.2.1 or 2001:db8::1"
        raise RefusedError(400, message) from None


@RESOURCES.get("/api/rules", "the rules as they were read", list[documents.FileDocument])
async def _rules(query: Query) -> ApiAnswer:
    return await listed(rules_document(query.control.index))
