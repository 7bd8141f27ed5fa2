"""All that two processes of txmux can say to each other.

They do so over a `txmux.net.channel.channel.Channel`; with the helper they exchange packets (``SOCK_SEQPACKET``, unix(7)), of a
JSON object each.
"""

from collections.abc import Callable
from functools import partial
from types import UnionType
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin, is_typeddict

import attrs

from txmux.net.channel.message import (
    AMOUNT,
    FLAG,
    NOTHING,
    NUMBER,
    TEXT,
    TIME,
    WORD,
    Field,
    Message,
)
from txmux.telemetry.documents import (
    ConnectionDocument,
    DecisionDocument,
    ExplainedStream,
    RecordDocument,
    ReportedAddress,
    fields_of,
)

_KIB, _MIB = 2**10, 2**20
_SHORT, _LARGE, _WHOLE = 64 * _KIB, 16 * _MIB, 256 * _MIB
PACKET = _SHORT
"""The most bytes of a packet from and to the starter and the helper."""
_SOCKETS = 2**18  # that listen; see `txmux.processes.usable.too_many_sockets`

_SIGNED = Field(float, 2**37, least=-(2**37))
_NAME, _TEXT = WORD, TEXT
_OBJECT, _LIST = Field(dict), Field(list)
_CHECKED_LATER = Field(list, is_read_later=True)
_NAMES, _OBJECTS, _NUMBERS = Field(list, of=_NAME), Field(list, of=_OBJECT), Field(list, of=NUMBER)
_TEXTS, _PLACES = Field(dict, of=_NAME), Field(dict, of=NUMBER)

_optional = partial(attrs.evolve, is_optional=True)
_nullable = partial(attrs.evolve, is_nullable=True)


def _object(**fields: Field) -> Field:
    return Field(dict, fields=fields)


_begun: dict[str, dict[str, Field]] = {}
"""The fields of documents, by name: one may have others of its kind within."""


def _row_of(document: type, **bounds: Field) -> Field:
    """Return the bounds of a document by the types of its fields, or those given here."""
    fields = _begun[document.__name__] = dict[str, Field]()
    for field in fields_of(document):
        kind = bounds.get(field.name) or _bounds_of(field.type)
        fields[field.name] = _optional(kind) if field.is_optional else kind
    return Field(dict, fields=fields)


def _bounds_of(form: Any) -> Field:  # noqa: PLR0911 - one for each kind of form
    kind, inner = get_origin(form), get_args(form)
    if kind is Annotated:
        return _bounds_of(inner[0])
    if kind in {Union, UnionType}:  # with `None`
        return _nullable(_bounds_of(inner[0]))
    if kind in {dict, list}:
        return Field(kind, of=_bounds_of(inner[-1]))
    if kind is Literal:
        return Field(str, words=frozenset(inner))
    if isinstance(form, ForwardRef):
        return Field(dict, fields=_begun[form.__forward_arg__])
    if is_typeddict(form):
        return _row_of(form)
    return {bool: FLAG, int: NUMBER, float: AMOUNT, str: _TEXT}.get(form, _NAME)


_LAYOUT = _object(columns=NUMBER, rows=_PLACES, tables=_PLACES, size=NUMBER)
_LAYOUT_CHANGES = _object(
    rows=_PLACES, tables=_PLACES, gone_rows=_NAMES, gone_tables=_NAMES, size=NUMBER
)
_TAKEN = _object(taken=_NUMBERS, connections=NUMBER)
"""Which of a batch the process takes, by their indexes, and how many connections it has then."""
_REPORT = _object(
    ok=FLAG,
    changes=_TEXT,
    errors=Field(list, of=_TEXT),
    details=_optional(_OBJECT),
    do=_optional(_TEXT),
)
"""See `txmux.control.report.Report`."""
_HEALTH = _object(
    backend=_NAME,
    server=_NAME,
    target=_NAME,
    state=_NAME,
    why=_TEXT,
    age=_nullable(_SIGNED),
    came=_nullable(_SIGNED),
    out=TIME,
    failed=Field(list, of=_SIGNED),
    credit=_SIGNED,
    contrary=NUMBER,
    connections=NUMBER,
)
"""See `txmux.backends.pool.server_health.ServerHealth.as_json`."""

_ADDRESS = _row_of(
    ReportedAddress, backend=_NAME, server=_NAME, address=_NAME, state=_NAME, weight=AMOUNT, since=_nullable(TIME),
    check=_optional(NOTHING),
)  # fmt: skip
"""Only the supervisor checks."""
_CLIENT = Field(list, row=(_NAME, NUMBER, NUMBER, AMOUNT, NUMBER, NUMBER, NUMBER, NUMBER, TIME))
"""See `txmux.client.client_table.Row`."""
_CONNECTION = _row_of(ConnectionDocument, id=_NAME, listener=_NAME, client=_NAME)
_EVENT = _object(
    event=Field(str, words=frozenset({"begin", "decide", "end", "skipped", "server"})), at=TIME,
    **{name: _optional(kind) for name, kind in _row_of(RecordDocument, reason=_TEXT).fields.items()},
    **dict.fromkeys(("address", "before", "state", "why"), _optional(_TEXT)), count=_optional(NUMBER),
)  # fmt: skip
"""See `txmux.telemetry.events`."""

MESSAGES: list[Message] = []
"""The rows of the table, in their order."""


def between(sender: str, receiver: str) -> Callable[..., Message]:
    def message(
        kind: str,
        meaning: str,
        *,
        answer: Field | None = None,
        descriptors: int = 0,
        longest: int = _SHORT,
        longest_answer: int = _SHORT,
        **fields: Field,
    ) -> Message:
        row = Message(
            kind, sender, receiver, meaning, answer, descriptors, longest, longest_answer, fields
        )
        MESSAGES.append(row)
        return row

    return message


# fmt: off

# From the supervisor to a worker.

_to_worker = between("supervisor", "worker")

COUNT_IN = _to_worker(
    "count_in", "count in this memory; the pipe shows how long the process counts",
    places=_PLACES, cells=NUMBER, answer=NOTHING, descriptors=2, longest=_LARGE)
COUNT_MORE = _to_worker(
    "count_more", "other rules have other counters: these are new, those are gone",
    places=_PLACES, cells=NUMBER, gone=_NAMES, longest=_LARGE)
START = _to_worker(
    "start", "serve these rules with these sockets; the answer says whether the process is in the sandbox",
    rules=_TEXT, version=NUMBER, limits=_LAYOUT, column=NUMBER, sockets=_NAMES, opener=FLAG,
    may_lack=FLAG, state=_OBJECT, answer=FLAG, descriptors=_SOCKETS, longest=_WHOLE)
FILES = _to_worker(
    "files", "use these of the supervisor's files from now on, by user, and forget those of users that are gone",
    files=_OBJECT, gone=_LIST, answer=NOTHING, longest=_WHOLE)
PING = _to_worker(
    "ping", "each second; the answer shows that the loop turns", answer=NOTHING)
STOP = _to_worker(
    "stop", "drain; clients that wait for a server may do so for these seconds more",
    longest_wait=NUMBER)
END_ALL = _to_worker("end_all", "end all connections")
REOPEN = _to_worker("reopen", "reopen the access log")
PREPARE = _to_worker(
    "prepare", "get ready for other rules, of which there may be only what is different from those of version `base`; the sockets are those that the worker lacks; the answer is false if it needs all of the rules",
    rules=_TEXT, base=NUMBER, digest=_NAME, rules_changed=FLAG, version=NUMBER, limits=_LAYOUT_CHANGES, sockets=_NAMES,
    answer=FLAG, descriptors=_SOCKETS, longest=_WHOLE)
COMMIT = _to_worker(
    "commit", "use the rules that were prepared; the answer is the number of connections that keep older ones",
    listening=FLAG, removed=_NAMES, answer=NUMBER, longest=_LARGE)
ABANDON = _to_worker("abandon", "forget the rules that were prepared")
END_REMOVED = _to_worker(
    "end_removed", "end the connections of removed routes and backends that are of rules before this version",
    routes=_NAMES, backends=_NAMES, version=NUMBER, longest=_LARGE)
ACCEPT = _to_worker("accept", "accept clients", answer=NOTHING)
GIVE_UP = _to_worker(
    "give_up", "accept who waits at these addresses, and close their ports; refuse others at those that are removed",
    keys=_NAMES, removed=_NAMES, answer=NOTHING, longest=_LARGE)
ATTACH = _to_worker(
    "attach", "another supervisor takes this process over by `retire` on the channel of this socket; the newest one that has done so and is there counts",
    answer=NOTHING, descriptors=1)
RETIRE = _to_worker(
    "retire", "stop accepting; answered when there are no connections", answer=NOTHING)
LEAVE = _to_worker(
    "leave", "end, unless there are connections; the answer says which", answer=FLAG)
HAND_OVER = _to_worker(
    "hand_over", "move the connections over these pairs of sockets, as soon as the workers at the other ends take some; the answer is how many have moved, and how many stay, by the reason",
    answer=_object(moved=NUMBER, stays=_PLACES), descriptors=1_000)
OPENER = _to_worker("opener", "have the process at this socket open files from now on", answer=NOTHING, descriptors=1)
WOULD_STAY = _to_worker(
    "would_stay", "count the connections that `hand_over` would move, and those that it would not, by the reason",
    answer=_object(moves=NUMBER, stays=_PLACES))
TAKE_OVER = _to_worker(
    "take_over", "connections will come over these pairs of sockets, with so many descriptors: clients that wait must not take their room",
    offered=_optional(NUMBER), answer=NOTHING, descriptors=1_000)
EXPECT = _to_worker(
    "expect", "count the connections of processes that accept no clients for the limits of servers: this worker's part of them",
    servers=_OBJECTS, longest=_WHOLE)
TAKE_DATAGRAMS = _to_worker("take_datagrams", "read the UDP ports; one worker does")
LEAVE_DATAGRAMS = _to_worker("leave_datagrams", "leave the UDP ports to another worker")
AWAIT_FLOWS = _to_worker(
    "await_flows", "keep the datagrams of unknown clients, for 5 seconds at most: their flows may come from another process")
FLOWS_ARE_HERE = _to_worker("flows_are_here", "no flows will come")
FLOWS_MOVED = _to_worker(
    "flows_moved", "answered when no flows are on their way; asked before an upgrade and before `commit`",
    answer=NOTHING)
FLOWS_LEFT = _to_worker(
    "flows_left", "report the removed listeners that still have flows", answer=_NAMES, longest_answer=_LARGE)
STATUS = _to_worker(
    "status", "count the connections",
    answer=_object(active=NUMBER, undecided=NUMBER, older=NUMBER, generation=NUMBER))
MISSING = _to_worker("missing", "report what `/readyz` lacks", answer=_NAMES, longest_answer=_LARGE)
SERVERS = _to_worker(
    "servers", "report the health of servers",
    answer=Field(list, of=_HEALTH), longest_answer=_WHOLE)
RECALL = _to_worker(
    "recall", "continue with what another process knew", state=_OBJECT, longest=_WHOLE)
CHECK = _to_worker(
    "check", "what health checks have found of a server, when that changes: `ok` if it is up again", backend=_NAME, key=_NAME, ok=FLAG, why=_TEXT)
NAMES = _to_worker("names", "results of look-ups", names=_OBJECT, longest=_WHOLE)
PART = _to_worker(
    "part", "what the supervisor keeps for a feature has something for what a worker keeps for it, or asks that, which answers by a list",
    feature=_NAME, values=_OBJECT, answer=_nullable(_CHECKED_LATER), longest=_WHOLE, longest_answer=_LARGE)
APPLY_OVERRIDES = _to_worker(
    "apply_overrides", "apply an operator's overrides: drained servers, paused listeners",
    overrides=_OBJECT, answer=NOTHING, longest=_LARGE)
BAN = _to_worker(
    "ban", "changed bans; a worker gets all of them when it starts",
    rows=_LIST, answer=NOTHING, longest=_WHOLE)
FEED = _to_worker(
    "feed", "changed lists of networks", published=_OBJECT, answer=NOTHING, longest=_WHOLE)
CONNECTIONS = _to_worker(
    "connections", "list connections",
    filters=_TEXTS, limit=NUMBER, after=_optional(_NAME), id=_optional(_NAME),
    answer=Field(list, of=_CONNECTION),
    longest_answer=_LARGE)
EXPLAIN_CONNECTION = _to_worker(
    "explain_connection", "explain the decision for a connection",
    id=_NAME, answer=_nullable(_bounds_of(DecisionDocument)), longest_answer=_LARGE)
EXPLAIN = _to_worker(
    "explain", "explain how listeners, or the one named, route the first bytes of a client, in hex: the process is in the sandbox",
    data=_TEXT, listener=_nullable(_NAME), client=_nullable(_NAME),
    answer=_bounds_of(list[ExplainedStream]), longest=_LARGE, longest_answer=_WHOLE)
RECOGNISE = _to_worker(
    "recognise", "name the matchers that take what clients said first, in hex, and whether as a datagram: a line of `match =` for each",
    clients=Field(list, of=Field(list, row=(_TEXT, FLAG))), answer=_NAMES, longest=_LARGE, longest_answer=_LARGE)
CLOSE = _to_worker(
    "close", "end connections; the answer is their number",
    filters=_TEXTS, id=_optional(_NAME), answer=NUMBER)
CLOSE_SERVER = _to_worker(
    "close_server", "end the connections of a server; the answer is their number",
    backend=_NAME, server=_NAME, answer=NUMBER)
ADDRESSES = _to_worker(
    "addresses", "report the addresses of servers, of all backends or of some",
    backends=_optional(_NAMES), answer=Field(list, of=_ADDRESS), longest_answer=_WHOLE)
CLIENTS = _to_worker(
    "clients", "list the busiest sources of clients, with what is counted of each",
    answer=Field(list, of=_CLIENT), longest_answer=_LARGE)
OF_MOVING = frozenset({CONNECTIONS, EXPLAIN_CONNECTION, CLIENTS, CLOSE, CLOSE_SERVER})
"""Of all connections, also of those that move to another worker: workers whose connections move are asked before those that take them."""
LISTEN = _to_worker("listen", "report events from now on, or no longer", on=FLAG)

# From a worker to the supervisor, which trusts it least.

_to_supervisor = between("worker", "supervisor")

LOG = _to_supervisor("log", "a line for the service's log", level=_NAME, text=Field(str, 16 * _KIB), longest=256 * _KIB)
ACCESS = _to_supervisor(
    "access", "a line of the access log", line=Field(str, _MIB), longest=2 * _MIB)
EVENT = _to_supervisor("event", "an event of a connection or a server", event=_EVENT, longest=_MIB)
BAD_ENDS = _to_supervisor(
    "bad_ends", "connections that did not end as they should, as JSON; at most once a second",
    rows=Field(list, 200, of=_NAME), answer=NOTHING, longest=2 * _MIB)
WAITING = _to_supervisor(
    "waiting", "whether clients of a backend wait for a server: its `wake` is sent",
    backend=_NAME, waiting=FLAG)
REPLACE = _to_supervisor(
    "replace", "it received SIGTERM alone and wants a successor, to which its connections move",
    answer=NOTHING)

# From the supervisor of a service to the one that takes its place.

_to_successor = between("old supervisor", "new supervisor")

BEGIN = _to_successor(
    "begin", "the listening sockets by their keys, and the state so far; answered when the new process could serve",
    version=NUMBER, sockets=_NAMES, state=_OBJECT, answer=_OBJECT, descriptors=_SOCKETS,
    longest=_WHOLE, longest_answer=_LARGE)
_COUNTERS = {"layouts": _OBJECTS, "past": _LIST, "all": _LIST, "format": _NAME, "pid": NUMBER}
COUNT_ON = _to_successor(
    "count_on", "the memory of the counters; sent before `serve`",
    **_COUNTERS, answer=NOTHING, descriptors=10_000, longest=_WHOLE)
SERVE = _to_successor(
    "serve", "accept, with this state, and adopt these workers, to each of which there is a channel; those files of counters follow that `count_on` may lack; the answer names the sockets that the rules lack",
    state=_OBJECT, workers=_optional(_OBJECTS), answer=_nullable(_NAMES), descriptors=20_000, longest=_WHOLE, longest_answer=_LARGE)
SETTLE = _to_successor(
    "settle", "answered when all connections of these workers have moved that can, which makes the upgrade final",
    answer=_object(moved=NUMBER, stays=_PLACES, ended=_NAMES, is_over=FLAG, stays_of=_optional(Field(dict, of=_PLACES))), longest_answer=_MIB)
END = _to_successor(
    "end", "stop the service: the old process was asked to before the upgrade was final")
ADOPT_CONNECTIONS = _to_successor(
    "adopt_connections", "pairs of sockets over which the connections of one worker will come, one for each new worker, and how many descriptors these have; only versions before 3 do this",
    offered=_optional(NUMBER), answer=NOTHING, descriptors=10_000)
HANDED_OVER = _to_successor(
    "handed_over", "all connections have come that can, so that none is on its way; as `adopt_connections`")
RELOAD = _to_successor(
    "reload", "read the rules again: the old process was asked to meanwhile",
    answer=_REPORT, longest_answer=_MIB)
RENEW = _to_successor(
    "renew", "renew a certificate: the old process was asked to, and has not done so",
    name=_TEXT, answer=_REPORT, longest_answer=_MIB)

_to_predecessor = between("new supervisor", "old supervisor")

COUNT_BACK = _to_predecessor(
    "count_back", "the memory of its counters: if it ends, its workers go on with what they have taken; sent before they accept",
    **_COUNTERS, answer=NOTHING, descriptors=10_000, longest=_WHOLE)
LEAVE_OUT = _to_predecessor(
    "leave_out", "a reload has removed these sockets; only versions before 3 ask, and this process has closed all of them by then",
    answer=NOTHING, longest=_LARGE)
EXITS = _to_predecessor(
    "exits", "the new process ends on purpose: one of a version before 3 would serve again",
    on=FLAG, answer=NOTHING)

# From a worker that gives connections away to one that takes them.

_to_taker = between("giving worker", "taking worker")

ADOPT = _to_taker(
    "adopt", "the state of each connection (`MovedConnection`) with its two descriptors; the answer names those that the new process takes, and how many it has",
    batch=NUMBER, connections=_object(names=_NAMES, rows=Field(list, of=_CHECKED_LATER)), answer=_TAKEN, descriptors=253,
    longest=_LARGE)
ADOPT_WAITING = _to_taker(
    "adopt_waiting", "the same for clients that wait for a server: each has one descriptor",
    batch=NUMBER, connections=_object(names=_NAMES, rows=Field(list, of=_CHECKED_LATER)), answer=_TAKEN, descriptors=253,
    longest=_LARGE)
GO_ON = _to_taker(
    "go_on", "which of them belong to the new process now, and which keep a slot in a limited pool; the others resume in the old one",
    batch=NUMBER, which=_NUMBERS, kept=_NUMBERS)
OFFERED_AGAIN = _to_taker(
    "offered_again", "how many descriptors those have that were not taken; they are offered again, and their room is kept until the channel is closed",
    descriptors_left=NUMBER)
RECEIVED = _to_taker("received", "answered when all has arrived", answer=NOTHING)
ADOPT_FLOWS = _to_taker(
    "adopt_flows", "the same as `adopt` for flows of datagrams, which pause until the answer",
    flows=Field(list, of=Field(dict, is_read_later=True)), answer=_object(taken=_NUMBERS), descriptors=253, longest=_LARGE)
END_FLOWS = _to_taker("end_flows", "flows that ended meanwhile", reasons=_TEXTS)
FLOWS_DONE = _to_taker("flows_done", "all flows have come: unknown addresses are new clients")

_to_giver = between("taking worker", "giving worker")

TAKES = _to_giver(
    "takes", "it takes connections from now on; how many it has, and whether it reads the UDP ports",
    connections=NUMBER, reads=FLAG)
ENDED = _to_giver(
    "ended", "a connection with a slot ended; answered when the old process has released the slot",
    id=_NAME, answer=NOTHING)

# Between the supervisor and the process that forks workers.

_to_starter = between("supervisor", "starter")

STDERR = _to_starter(
    "stderr", "the supervisor's standard error stream, which changes in an upgrade; the first message",
    answer=NOTHING, descriptors=1)
BECOME = _to_starter(
    "become", "switch to this `Account` for good; if that fails, the starter ends",
    user=_NAME, uid=NUMBER, gid=NUMBER, answer=NOTHING)
IMPORT = _to_starter("import", "import what workers of other rules need", modules=_NAMES, answer=NOTHING)
STARTER_PING = _to_starter("ping", "without an answer, the starter is killed", answer=NOTHING)
FORK = _to_starter(
    "fork", "fork the worker of this number, with this channel; the answer is the ID of its process",
    number=NUMBER, reactor=_NAME, sandbox=_NAME, answer=NUMBER, descriptors=1)

_from_starter = between("starter", "supervisor")

EXITED = _from_starter(
    "ended", "a worker has ended, with this status of `os.waitpid`", pid=NUMBER, status=NUMBER)
REFUSED_CALL = _from_starter(
    "refused_call", "the sandbox has refused a worker this system call", number=NUMBER, call=_NAME)

# Packets.

_worker_to_helper = between("worker", "helper")

OPEN = _worker_to_helper(
    "open", "open a file of the rules for reading, or the access log for appending",
    path=_NAME, write=FLAG, answer=NOTHING)

_to_helper = between("supervisor", "helper")

BIND = _to_helper(
    "bind", "open the socket of an endpoint of the rules; `beside` is for helpers of older versions",
    listener=_NAME, text=_NAME, beside=_optional(FLAG), answer=NOTHING)
READ_RULES = _to_helper(
    "rules", "read the rules again; the answer is a file with their text", answer=NOTHING)
LEAVE_OUT = _to_helper(
    "leave out", "have in force what was so for a unit, since the supervisor cannot serve it as it was read", unit=_NAME, answer=NOTHING)
HELPER_COMMIT = _to_helper("commit", "forget what only earlier rules name", answer=NOTHING)
ANOTHER = _to_helper(
    "another", "open another connection; with `may_all` not only for files",
    may_all=FLAG, answer=NOTHING)
NAME = _to_helper(
    "name", "write the PID file, or remove it", pid=NUMBER, remove=FLAG, answer=NOTHING)
REMOVE = _to_helper("remove", "remove the file of a UNIX socket, if it is this one", path=_NAME, device=NUMBER, inode=NUMBER, answer=NOTHING)

# fmt: on
