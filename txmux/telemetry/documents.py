"""What the API reports of a service: the fields of each document, and its table.

A field is declared once: ``NAME: Annotated[TYPE, MEANING, COLUMN]``. From that follow what mypy lets makers and readers of the document do,
its schema in OpenAPI, its line in the reference, and its column in the commands, in `txmux top` and on the page. Quick to import.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import starmap
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    get_args,
    get_origin,
)

from txmux.rules.optional import states
from txmux.telemetry import presentation
from txmux.telemetry.presentation import Column, Health, Row, Table
from txmux.telemetry.reasons import EndReason

_Document = TypeVar("_Document", bound=Mapping[str, Any])

Positive = Annotated[int, 1]  # a whole number from 1 on


class DocumentField(NamedTuple):
    """A field of a document.

    Attributes:
        type: Of its value: see `txmux.admin.api.openapi.schema_of`.
        meaning: For the reference, in Markdown; fields of the same meaning share a line there, and one without shares that of the field before.
        column: How tables show it, if they do.
        is_optional: Whether it may be missing.
    """

    name: str
    type: Any
    meaning: str
    column: Column | None
    is_optional: bool


class AddedField(NamedTuple):
    """A row of a feature: a field of a document, which may be missing.

    Attributes:
        document: One whose maker calls `add_fields`.
        value: Makes it of what the maker gives; ``None`` if it is missing.
    """

    document: type
    field: DocumentField
    value: Callable[..., Any]


@cache
def fields_of(document: type) -> tuple[DocumentField, ...]:
    return tuple(starmap(_field, document.__annotations__.items()))


def every_field_of(document: type) -> tuple[DocumentField, ...]:
    return (*fields_of(document), *(one.field for one in _added_to(document)))


def _added_to(document: type) -> list[AddedField]:
    from txmux.rules.installed import rows  # noqa: PLC0415 - commands do without it

    return [one for one in rows(AddedField) if one.document is document]


def add_fields(row: Mapping[str, Any], document: type, *facts: Any) -> None:
    """Add the fields of features: of `ListenerDocument` by the `Gauges`, and the `ListenerTotals` of the listener."""
    values = {one.field.name: one.value(*facts) for one in _added_to(document)}
    cast("dict[str, Any]", row).update({k: v for k, v in values.items() if v is not None})


def _field(name: str, written: Any) -> DocumentField:
    is_optional = get_origin(written) is NotRequired
    kind = get_args(written)[0] if is_optional else written
    more: tuple[Any, ...] = getattr(kind, "__metadata__", ())
    meaning = next((text for text in more if isinstance(text, str)), "")
    column = next((column.named(name) for column in more if isinstance(column, Column)), None)
    return DocumentField(name, kind, meaning, column, is_optional)


def row_of(document: type[_Document], *sources: object) -> _Document:
    """Return a document whose fields are attributes of the same names, each of the first source with it; an optional one may be ``None``."""
    row: dict[str, Any] = {}
    for field in fields_of(document):
        name = field.name
        source = next((one for one in sources[:-1] if hasattr(one, name)), sources[-1])
        value = getattr(source, name)
        if value is not None or not field.is_optional:
            row[name] = value
    return cast("_Document", row)


# Values of columns that are not those of one field.


def _facts(row: Row) -> str:
    return " ".join(f"{name}={value}" for name, value in (row.get("facts") or {}).items())


def _check(row: Row) -> tuple[str, float] | None:
    check = row.get("check")
    if not check or check.get("last") is None:
        return None
    return ("ok" if check["ok"] else str(check["result"])), check["last"]


def _last_failure(row: Row) -> tuple[str, float] | None:
    failure = row.get("last_failure")
    return failure and (str(failure["cause"]), failure["time"])


def _weight(row: Row) -> float | None:
    weight: float = row.get("effective_weight", row.get("weight", 1))
    return None if weight == 1 else weight


def _why(row: Row) -> str:
    return presentation.slow_start(row) if row.get("state") == "up" else str(row.get("why") or "")


# The documents: short fields several to a line.
# fmt: off

_COUNT, _IN, _OUT = Column(kind="count"), Column("in", kind="bytes"), Column("out", kind="bytes")
_IN_LATER, _OUT_LATER = (column._replace(goes=2) for column in (_IN, _OUT))
_LOGGED = "as in the [access log](access-log.md#keys); `null` if not known yet"
_WRITTEN = "as the rules write them"
_IN_RULES = "as in the rules"

STATES: tuple[str, ...] = (
    "introduction",  # in `reading_proxy_header`; the API shows this name
    *states(), "peeking", "handshaking", "awaiting-hello", "connecting", "awaiting-retry", "relaying", "serving",
    "handing-over", "rejecting", "closing",
)
"""The stages of connections that have not ended, in their order; where those of features come depends on rules."""

if TYPE_CHECKING:
    LiveState: TypeAlias = str
else:
    LiveState = Literal[STATES]

class ConnectionDocument(TypedDict):
    """A row of ``/api/connections``."""
    id: Annotated[str, _LOGGED, Column(least=12, goes=5)]
    listener: Annotated[str, _LOGGED, Column(least=8, goes=4)]
    client: Annotated[str, _LOGGED, Column(least=12)]
    local: Annotated[str | None, _LOGGED]
    route: Annotated[str | None, _LOGGED, Column()]
    backend: Annotated[str | None, _LOGGED]
    server: Annotated[str | None, _LOGGED, Column(least=9, keeps_end=True)]
    state: Annotated[LiveState, "its [state](#states)", Column(least=8)]
    age_ms: Annotated[float, "milliseconds since accept", Column("age", kind="ms")]
    idle_ms: Annotated[float, "milliseconds since a byte came from either side, or else since accept", Column("idle", kind="ms", goes=3)]
    bytes_in: Annotated[int, "bytes from the client, and to it", _IN_LATER]
    bytes_out: Annotated[int, _OUT_LATER]
    datagrams_in: NotRequired[Annotated[int, "the same in datagrams, of flows of [UDP](rules.md#udp) alone"]]
    datagrams_out: NotRequired[int]
    generation: Annotated[int, "the version of the rules that it was accepted under; an upgrade keeps it"]
    worker: Annotated[Positive | None, "its worker's number; `null` without workers"]
    facts: Annotated[dict[str, str], _LOGGED, Column(value=_facts, least=12, goes=6)]

RecordDocument = TypedDict("RecordDocument", {
    "time": str, "id": str, "listener": str, "client": str, "local": str | None, "route": str | None, "backend": str | None,
    "server": str | None, "server_local": str | None, "bytes_in": int, "bytes_out": int, "detect_ms": float | None,
    "connect_ms": float | None, "duration_ms": Annotated[float | None, Column("lasted", kind="ms")],
    "reason": Annotated[EndReason, Column(least=10)], "facts": dict[str, str], "datagrams_in": NotRequired[int],
    "datagrams_out": NotRequired[int],
})
"""A record of the access log."""

class EndDocument(RecordDocument):
    """A row of ``/api/recent``."""
    ended: Annotated[float, Column(kind="ago")]
    first: NotRequired[str]
    worker: Positive | None

class RouteNumbers(TypedDict):
    """What a route has done: on one listener, or on all."""
    matches: Annotated[int, "the clients that it took, and would have taken", _COUNT]
    dry_run_matches: Annotated[int, Column("dry run", kind="count", value=lambda row: row.get("dry_run_matches") or None, goes=2)]
    active: Annotated[int, "its live connections", _COUNT]
    bytes_in: Annotated[int, "bytes from its clients, and to them", _IN]
    bytes_out: Annotated[int, _OUT]
    last_match: Annotated[float | None, "when it last took a client, in seconds since 1970; `null` if never", Column("last match", kind="ago", goes=1)]

_OfListener = TypedDict("_OfListener", {"listener": str})
class ListenerNumbers(_OfListener, RouteNumbers):
    """What a route has done on a listener."""
_OfRoute = TypedDict("_OfRoute", {"name": Annotated[str, _IN_RULES, Column("route", least=8)]})
class RouteDocument(_OfRoute, RouteNumbers):
    """A row of ``/api/routes``."""
    under: Annotated[list[str], _IN_RULES]
    backend: Annotated[str | None, "its outcome: a backend's name, the server of a short form, `close`, `reset` or `reject`", Column("to", least=8, keeps_end=True)]
    dry_run: Annotated[bool, _IN_RULES]
    ends_tls: Annotated[bool, "whether it ends TLS, and opens tunnels"]
    tunnel: bool
    listeners: Annotated[list[ListenerNumbers], "the same numbers for each `listener`"]
    file: Annotated[str | None, "its place in the rules, and its text"]
    line: int | None
    rule: str

CheckDocument = TypedDict("CheckDocument", {"ok": bool, "last": float, "duration_ms": float, "result": str, "history": list[bool]})

AddressState = Literal["up", "down", "failing", "silent", "ejected", "probing", "disabled", "drain", "maintenance", "unresolved"]

class StateDocument(TypedDict):
    """The state of a server, or of one of its addresses."""
    state: Annotated[AddressState, "`up`; `down`: its checks fail; [`failing`, `silent`](rules.md#what-connections-say): clients' connections fail, or get no byte; `ejected`: connections failed, so it gets none for a while; `probing`: then one connection tries it; `disabled`: `down` in the rules; `drain`, `maintenance`: an operator has taken it out; `unresolved`: its name has no address yet",
                     Column(value=presentation.server_state, least=5)]
    why: Annotated[str, "the newest cause of the state. Where workers differ, the worst, and who found it", Column(value=_why, least=20, goes=1)]
    since: Annotated[float | None, "when the state, or ejection before a probe, began, in seconds since 1970; `null` if at the start", Column("for", kind="for", goes=9)]
    weight: Annotated[int, "the weight in force", Column(kind="number", value=_weight, goes=6)]
    effective_weight: Annotated[float, "less than `weight` while it [starts slowly](rules.md#slow-start)"]
    check: Annotated[CheckDocument | None, "the last check: `ok`; `last`, when it began; `duration_ms`; `result`; `history`, whether the last fifty were good, the newest last. `null` before the first",
                     Column(kind="event", value=_check, least=8, goes=5)]

_OfAddress = TypedDict("_OfAddress", {"address": str})
class AddressDocument(_OfAddress, StateDocument):
    """An address of a server."""
_OfServer = TypedDict("_OfServer", {"server": Annotated[str, _WRITTEN, Column(least=9, keeps_end=True)]})
LastFailure = TypedDict("LastFailure", {"time": float, "cause": str})

class ServerDocument(_OfServer, StateDocument):
    """A server of a backend."""
    checked: Annotated[bool, "whether the backend has a check"]
    backup: Annotated[bool, _WRITTEN]
    active: Annotated[int, "its connections now and since the start, and failed attempts", _COUNT]
    total: Annotated[int, _COUNT._replace(goes=8)]
    failed: Annotated[int, _COUNT]
    failures: Annotated[dict[str, int], "the failed attempts by reason"]
    rate: Annotated[float, "new connections per second in the last 15 seconds", Column(kind="rate", goes=2)]
    bytes_in: Annotated[int, "bytes to it, and from it", _IN._replace(goes=7)]
    bytes_out: Annotated[int, _OUT._replace(goes=7)]
    first_byte_ms: Annotated[float | None, "the average time to its first byte in the last minute; `null` without one", Column("first byte", kind="ms", goes=3)]
    last_failure: Annotated[LastFailure | None, "the last failed attempt: `time`, in seconds since 1970, and `cause` in words; or `null`",
                            Column("last failure", kind="event", value=_last_failure, least=20, goes=4)]
    addresses: Annotated[list[AddressDocument], "its addresses, each with `address`, `state`, `why`, `since`, `weight`, `effective_weight` and `check`", Column("found", value=presentation.found_addresses)]

_OfBackend = TypedDict("_OfBackend", {"backend": Annotated[str, Column(least=7)]})
class ReportedAddress(_OfBackend, _OfServer, AddressDocument):
    """An address as a process reports it; only the supervisor has checks."""
Hold = TypedDict("Hold", {"until": float | None})

class BackendDocument(TypedDict):
    """A row of ``/api/backends``."""
    name: Annotated[str, "its name; of a short form, its server's"]
    hold: Annotated[Hold | None, "`null` unless an operator lets its clients wait, `until` a time, in seconds since 1970, or `null` without an end"]
    held: Annotated[int, "clients that [wait](rules.md#clients-that-wait-for-a-server)"]
    servers: Annotated[list[ServerDocument], "its servers, as below"]

class ClientDocument(TypedDict):
    """A row of ``/api/clients``: a source."""
    source: Annotated[str, "an IPv4 address, an IPv6 network (`2001:db8:0:7::/64`), or `unix`", Column(least=12)]
    active: Annotated[int, "live connections, and flows of [UDP](rules.md#udp)", _COUNT]
    connections: Annotated[int, "all since `since`, live and refused ones included", _COUNT]
    rate: Annotated[float, "new ones a second; the last 15 seconds count most", Column(kind="rate")]
    bytes_in: Annotated[int, "bytes from it, and to it", _IN]
    bytes_out: Annotated[int, _OUT]
    refused: Annotated[int, "those that ended with `limit` or `denied`, so also by a ban. Over UDP, each datagram that began no flow counts, too", _COUNT]
    unrecognised: Annotated[int, "those that no route took", _COUNT]
    since: Annotated[float, "when it was first counted, in seconds since 1970", Column("for", kind="for", goes=1)]

class ShownCertificate(TypedDict):
    """A certificate of a file, as a worker reports it."""
    route: Annotated[str, "the route that shows it", Column()]
    names: Annotated[list[str], "the names that it is for", Column()]
    issuer: Annotated[str, "the authority that signed it", Column(value=lambda row: "itself, until there is another" if row.get("is_self_signed") else row.get("issuer"))]
    not_before: Annotated[float, "when it and its chain are valid, in seconds since 1970"]
    not_after: Annotated[float, Column("ends", kind="time")]
    file: Annotated[str, "its file", Column("from", value=lambda row: " ".join(filter(None, ("acme", row.get("authority"), row.get("profile")))) if row.get("acme") else row.get("file"))]

class CertificateDocument(ShownCertificate):
    """A row of ``/api/certificates``: a certificate that clients are shown."""
    state: Annotated[Literal["valid", "not valid yet", "ends soon", "ended"], "`ends soon`: within 14 days", Column()]
    next_renewal: Annotated[float | None, "when it is renewed, in seconds since 1970; `null` unless it comes by [ACME](rules.md#certificates-by-acme)", Column("next renewal", kind="time")]
    is_self_signed: Annotated[bool, "whether it is txmux's own, until the first by ACME"]
    acme: Annotated[bool, "whether it comes by ACME"]
    authority: Annotated[str | None, "by ACME, the authority as the rules name it, and its `profile` if they do; else `null`"]
    profile: str | None

class BanDocument(TypedDict):
    """A row of ``/api/bans``."""
    network: Annotated[str, "the address or network", Column()]
    since: Annotated[float, "when it began, in seconds since 1970"]
    until: Annotated[float | None, "when it ends; `null` without an end", Column("left", kind="left")]
    reason: Annotated[str, "the reason given", Column()]

class WorkerDocument(TypedDict):
    """A worker, in ``/api/status``."""
    number: Annotated[Positive, "its number, from 1"]
    worker: Annotated[Positive, Column()]
    pid: Annotated[int, "its process; 0 while there is none", Column("process")]
    ready: Annotated[bool, "whether it serves", Column("state", value=presentation.worker_state)]
    retiring: Annotated[bool, "whether it only keeps old connections"]
    sandbox: Annotated[bool, "whether the [sandbox](rules.md#sandbox) confines it; false until it is ready",
                       Column(value=lambda row: {True: "yes", False: "no"}.get(row.get("sandbox")), goes=1)]
    connections: Annotated[int | None, "how many it has; `null` if it does not answer"]
    generation: NotRequired[Annotated[int, "the version of its rules, and its connections: all, undecided ones, and those under older rules. Missing until it is ready, and if it does not answer", Column("rules")]]
    active: NotRequired[Annotated[int, _COUNT]]
    undecided: NotRequired[Annotated[int, _COUNT]]
    older: NotRequired[Annotated[int, Column("older rules", kind="count")]]

class ListenerDocument(TypedDict):
    """A listener, in ``/api/status``."""
    name: Annotated[str, _IN_RULES, Column("listener")]
    endpoints: Annotated[list[str], "its addresses as the rules write them"]
    addresses: Annotated[list[str], "where it listens", Column("address", value=lambda row: row.get("addresses") or row.get("endpoints"))]
    starttls: Annotated[str | None, _IN_RULES, Column(goes=2)]
    accepting: Annotated[bool, "false if it cannot accept, after such a `POST /api/listeners/NAME`, and at the end", Column("state", value=presentation.listener_state, goes=1)]
    why: Annotated[str, "why it does not"]

class AttentionDocument(TypedDict):
    """An item of ``attention`` in ``/api/status``."""
    level: Annotated[str, "`critical`: clients are turned away or lost now; `warning`: they will be, or protection is off; `note`: you should know"]
    what: Annotated[str, "the topic, a label of [`txmux_attention`](metrics.md), as listed below"]
    text: Annotated[str, "what is wrong"]
    cause: Annotated[str, "the newest cause; may be empty"]
    since: Annotated[float | None, "when it began, in seconds since 1970"]
    do: Annotated[str, "a command or sentence that helps"]
    link: Annotated[str, "the part of the page that shows it; may be empty"]
    owner: Annotated[str, "whose rules it is about, if of another [unit](rules.md#units) than yours: their file, or `user 1001`, who has written it"]

Unrouted = TypedDict("Unrouted", {"ended": int, "bytes_in": int, "bytes_out": int})
Connections = TypedDict("Connections", {"active": int, "undecided": int, "total": int, "unrouted": Unrouted, "limit": int})
ReportDocument = TypedDict("ReportDocument", {"ok": bool, "changes": str, "errors": list[str]})
LastReload = TypedDict("LastReload", {"time": float, "ok": bool, "changes": str, "errors": list[str]})
Descriptors = TypedDict("Descriptors", {"open": int, "max": int})
Expiry = TypedDict("Expiry", {"route": str, "file": str, "expires": float})
UntakenDocument = TypedDict("UntakenDocument", {"unit": str, "in_force": bool, "errors": list[str]})
BanCounts = TypedDict("BanCounts", {"active": int, "shared": str | None})
Source = TypedDict("Source", {"source": str, "up": bool, "age": float | None, "why": str})

class _Status(TypedDict):
    version: Annotated[str, "the version of txmux"]
    pid: Annotated[int, "the process that answers"]
    started: Annotated[float | None, "when it began to serve, in seconds since 1970"]
    generation: Annotated[int, "the version of the rules, from 1. An upgrade keeps it and `last_reload`; a reload that had failed is `ok` then"]
    workers: Annotated[list[WorkerDocument], "the [workers](#workers)"]
    listeners: Annotated[list[ListenerDocument], "the [listeners](#listeners)"]
    connections: Annotated[Connections, "`active` ones; `undecided` ones; `total`, all since the start; `unrouted`: `ended` ones that no route took, and the bytes of all such; `limit`: `max_connections`, 0 for none"]
    rates: Annotated[dict[str, float], "per second, over the last ten to fifteen: `connections`, `bytes_in` from clients, `bytes_out` to them. Missing just after the start"]
    last_reload: Annotated[LastReload | None, "`time`, in seconds since 1970, `ok`, `changes` and `errors`; `null` before the first one"]
    draining: Annotated[bool, "whether the service is shutting down"]
    rules_path: Annotated[str, "the file of the rules; `<options>` without one"]
    rules_sha256: Annotated[str, "the SHA-256 of the current rules as read: of one file, as by `sha256sum`; with [`include`](rules.md#included-files), of all files one after another, the main one first"]

    untaken: Annotated[list[UntakenDocument], "each [unit](rules.md#units) that is not taken: its name, whether what was in force for it stays `in_force`, and its `errors`"]

class StatusGauges(TypedDict):
    """What ``/api/status`` has of what processes measure: `txmux.control.gauges`."""
    descriptors: Annotated[Descriptors, "the `open` ones of the process with the least room, of its `max`"]
    certificates: Annotated[list[Expiry], "each certificate for clients: its `route`, its `file`, and when it `expires`, in seconds since 1970"]
    sources: Annotated[list[Source], "whatever txmux asks (the authority for certificates, Redis, CrowdSec, Consul, name servers, files of networks), and each running [provider](providers.md) that says whether its own answers: its name as `source`; whether it is `up`; the `age` of its last good answer, in seconds, `null` before the first; `why` there was none since"]

class StatusDocument(_Status, StatusGauges):
    """The document of ``/api/status``."""
    bans: Annotated[BanCounts, "`active`, their number; `shared`, how far those of other machines apply: `complete`; `partial`, without room for all; `reading`, at the start and after an outage; `lost`, while limits and bans are not shared; `null` without `shared_limits`"]
    attention: Annotated[list[AttentionDocument], "what [needs your attention](#attention), the worst first, then the oldest"]
    incomplete: Annotated[list[str], "a line with the reason for each worker whose part is missing"]

# How routes decide on bytes: what `txmux explain` says.

Says = Literal["match", "no", "undecided", "not asked", "unknown"]
Decider = Literal["route", "default", "silent"]
LineAnswer = TypedDict("LineAnswer", {
    "match": str, "says": str | None, "at": int | None, "needs_up_to": int | None, "error": str | None,
})
RouteAnswerDocument = TypedDict("RouteAnswerDocument", {
    "route": str, "says": Says, "at": int | None, "needs_up_to": int | None, "error": str | None,
    "excluded_by": Literal["from", "not_from", "client_cert", "during"] | None, "dry_run": bool, "lines": list[LineAnswer],
})

class InnerAnswer(RouteAnswerDocument):
    """How a route answers, and in the TLS of which route it was asked."""
    inside: str | None

DecisionDocument = TypedDict("DecisionDocument", {
    "listener": str, "from": str | None, "by": Decider | None, "route": str | None, "bytes": int | None, "facts": dict[str, str],
    "routes": list[InnerAnswer],
})

class ExplainedConnectionDocument(ConnectionDocument):
    """The document of ``/api/connections/ID``."""
    explanation: DecisionDocument | None

Target = TypedDict("Target", {
    "after": NotRequired[float], "at": int | None, "by": Literal["route", "default", "silent", "denied", "tls-failed", "cancel"], "route": str | None,
    "to": str | None, "servers": list[str], "text": str,
})
ListenerAnswer = TypedDict("ListenerAnswer", {
    "listener": str, "from": str | None, "during": bool, "time": str, "bytes": int, "first": str, "peek_limit": int | None,
    "routes": list[RouteAnswerDocument], "decision": Target | None, "at_deadline": Target | None, "silence": Target | None, "answers": list[str],
    "facts": dict[str, str], "inside": NotRequired["ListenerAnswer"],
})

ExplainedStream = TypedDict("ExplainedStream", {
    "client": str | None, "server": str | None, "bytes": int, "datagrams": list[int] | None, "gap": bool, "late": bool, "server_first": bool,
    "listeners": list[ListenerAnswer],
})
ExplanationDocument = TypedDict("ExplanationDocument", {"rules": str, "streams": list[ExplainedStream]})

SectionDocument = TypedDict("SectionDocument", {"name": str, "line": int, "text": str})
FileDocument = TypedDict("FileDocument", {"file": str, "text": str, "sections": Iterable[SectionDocument]})
Error = TypedDict("Error", {"error": str, "errors": NotRequired[list[str]]})
Done = TypedDict("Done", {"ok": bool, "changes": str})
Reloaded = TypedDict("Reloaded", {"ok": bool, "changes": str, "untaken": NotRequired[list[UntakenDocument]]})
Closed = TypedDict("Closed", {"ok": bool, "changes": str, "closed": int, "incomplete": NotRequired[list[str]]})
Upgraded = TypedDict("Upgraded", {
    "ok": bool, "changes": str, "moved": int, "stays": dict[str, int], "until": float | None, "complete": bool,
})
UpgradeCheck = TypedDict("UpgradeCheck", {
    "ok": bool, "changes": str, "ready": bool, "refusals": list[str], "moves": int, "stays": dict[str, int], "until": float | None,
    "incomplete": list[str],
})
Ready = TypedDict("Ready", {"ready": bool, "missing": list[str], "stale": list[str]})

# The tables: of each its title, the fields that name a row as long as it is there, those that it shows, without them all with a column, and whose.

def _table(title: str, key: str, order: str, *shown: type, health: Callable[[Row], Health | None] = lambda _: None) -> Table:
    columns = {field.name: field.column for document in shown for field in fields_of(document) if field.column}
    return Table(title, [columns[name] for name in order.split() or columns], key.split(), health)

CONNECTIONS = _table(
    "connections", "id", "client listener route server state age_ms idle_ms bytes_in bytes_out id facts", ConnectionDocument,
    health=lambda row: "partly" if row.get("state") in {"peeking", "connecting"} else None)
ROUTES = _table(
    "routes", "name", "name backend active matches dry_run_matches bytes_in bytes_out last_match", RouteDocument,
    health=lambda row: None if row.get("matches") or row.get("dry_run_matches") else "idle")
SERVERS = _table(
    "servers", "backend server",
    "backend server state active rate bytes_in bytes_out first_byte_ms failed total weight check last_failure since why",
    _OfBackend, ServerDocument, health=presentation.server_health)
ENDS = _table(
    "recent ends", "id", "ended client listener route server reason duration_ms bytes_in bytes_out id facts",
    ConnectionDocument, EndDocument)
CLIENTS = _table("clients", "source", "", ClientDocument, health=lambda row: "partly" if row.get("refused") else None)
_LISTENERS = _table("listeners", "name", "", ListenerDocument, health=presentation.listener_health)
WORKERS = _table("workers", "worker", "", WorkerDocument, health=lambda row: presentation.WORKER_HEALTH.get(presentation.worker_state(row)))
BANS = _table("bans", "network", "", BanDocument)
CERTIFICATES = _table("certificates", "names", "names state issuer not_after next_renewal route file", CertificateDocument,
    health=lambda row: presentation.CERTIFICATE_HEALTH.get(row.get("state")))
ADDRESSES = _table("addresses", "backend server", "backend server addresses", _OfBackend, ServerDocument)

def listeners(rows: Iterable[Row] | None = None) -> Table:
    """Return the table of listeners, with the columns of features, which are imported only if one of the rows has more fields."""
    if rows is not None and all(ListenerDocument.__annotations__.keys() >= row.keys() for row in rows):
        return _LISTENERS
    added = (one.field.column for one in _added_to(ListenerDocument))
    return _LISTENERS._replace(columns=[*_LISTENERS.columns, *filter(None, added)])
