"""The state machine of a client's connection: the outcomes of its stages, and what follows each. Pure.

A connection is at one *stage* at a time (`txmux.tcp.stages`). A stage reports an outcome and does not know what follows it.
`TRANSITIONS` says which stage that is, or which *choice*: a decision that takes no time and has an outcome of its own. The values of
an outcome are what the next stage or choice is made of. `txmux.tcp.connection.MuxProtocol` has the choices, and goes by the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

from txmux.rules.installed import STAGES

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Destination, Upstream
    from txmux.client.configuration import CompiledRoute, RuleLayer
    from txmux.client.tls.terminator import CertificateSource, TlsTerminator
    from txmux.net.relay.interface import RelayState, Timeouts
    from txmux.rules.model import Handover, InProcess, Refusal
    from txmux.telemetry.reasons import EndReason
    from txmux.telemetry.record import ConnectionState

# Outcomes of stages.


class HeaderExpected(NamedTuple):
    """The client comes from an address that has to send a PROXY protocol header first."""


class Identified(NamedTuple):
    """The client's address is known."""

    header_length: int = 0  # bytes of the PROXY protocol header that names it; 0 if there was none


class Detected(NamedTuple):
    """Detection came to an end; ``route`` is ``None`` if no route of the layer matched, and ``reason`` is for the log, should it refuse."""

    layer: RuleLayer
    route: CompiledRoute | None
    reason: EndReason = "denied"


class Routed(NamedTuple):
    """The client's destination is known; ``reason`` is for the log, should that be a refusal."""

    destination: Destination
    reason: EndReason


class Opened(NamedTuple):
    """The client's TLS is established, or whatever else a route opens; what is inside is detected by the routes of ``layer``."""

    layer: RuleLayer


class ToBackend(NamedTuple):
    """A server of a backend is to be connected."""

    upstream: Upstream


class Connected(NamedTuple):
    """A server is connected."""

    upstream: Upstream
    member: Member
    server: ProxyClient | None  # ``None`` if it is a plain socket, which the connection has


class ConnectedByHello(NamedTuple):
    """A server is connected, for a client that was routed by its hello, for which a second one must not ask for something else."""

    upstream: Upstream
    member: Member
    server: ProxyClient | None  # as in `Connected`


class MovedHere(NamedTuple):
    """Another process has relayed the connection until now."""

    upstream: Upstream | None  # the backend, if these rules have it; then ``member`` is the server
    member: Member | None
    server: ProxyClient
    state: RelayState
    timeouts: Timeouts
    release_elsewhere: Callable[[Callable[[], None]], None] | None  # see `Relaying`


class TurnedAway(NamedTuple):
    """The client is not served; ``reason`` is for the log, and the answer of `Refusal.REJECT` depends on it."""

    how: Refusal
    reason: EndReason


class Finished(NamedTuple):
    """Nothing is left of the connection."""

    reason: EndReason


# Outcomes of choices alone.


class Admitted(NamedTuple):
    """The client is let in."""

    layer: RuleLayer  # has the routes that decide


class TerminatesTLS(NamedTuple):
    """The client's route terminates TLS."""

    terminator: TlsTerminator[CertificateSource]
    inside: RuleLayer
    layer: RuleLayer  # has the route


class HelloIncomplete(NamedTuple):
    """What is in the client's ClientHello is needed, which has not come in full."""

    upstream: Upstream


class ToProtocol(NamedTuple):
    """A protocol of this process serves the client."""

    destination: InProcess


class ToProcess(NamedTuple):
    """The client's socket goes to another process."""

    destination: Handover


class ToClosing(NamedTuple):
    """The connection is closed without an answer."""

    how: Refusal
    reason: EndReason


class ToRejecting(NamedTuple):
    """The connection is closed after an answer in the client's protocol."""

    how: Refusal
    reason: EndReason


Outcome: TypeAlias = (
    "HeaderExpected | Identified | Detected | Routed | Opened | ToBackend | Connected | ConnectedByHello | MovedHere"
    " | TurnedAway | Finished | Admitted | TerminatesTLS | HelloIncomplete | ToProtocol | ToProcess | ToClosing"
    " | ToRejecting"
)

Choice = Literal["admission", "decision", "routing", "refusal"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
Node: TypeAlias = "Literal['accepted'] | Choice | ConnectionState"

OF_FEATURES: Mapping[str, tuple[Choice, Mapping[type[Outcome], Node]]] = {
    "listen": ("admission", {Admitted: "peeking"}),
    "route": (
        "decision",
        {Detected: "decision", Opened: "peeking", TerminatesTLS: "handshaking", Routed: "routing"},
    ),
    "match": ("decision", {Routed: "routing"}),
}
"""Stages of features: the choice behind which clients pass them, and what may follow, by the kind of section whose key brings them."""

_ENDS: Mapping[type[Outcome], Node] = {TurnedAway: "refusal", Finished: "over"}

TRANSITIONS: Mapping[Node, Mapping[type[Outcome], Node]] = {
    "accepted": {
        HeaderExpected: "introduction",
        Identified: "admission",
        MovedHere: "relaying",
        ToBackend: "connecting",
    },
    "introduction": {Identified: "admission", TurnedAway: "refusal", Finished: "over"},
    "admission": {Admitted: "peeking", TurnedAway: "refusal"},
    "peeking": {Detected: "decision", Routed: "routing", TurnedAway: "refusal", Finished: "over"},
    "decision": {TerminatesTLS: "handshaking", Routed: "routing"},
    "handshaking": {Opened: "peeking", TurnedAway: "refusal", Finished: "over"},
    "routing": {
        ToBackend: "connecting",
        HelloIncomplete: "awaiting-hello",
        ToProtocol: "serving",
        ToProcess: "handing-over",
        TurnedAway: "refusal",
    },
    "awaiting-hello": {ToBackend: "connecting", TurnedAway: "refusal", Finished: "over"},
    "connecting": {
        Connected: "relaying",
        ConnectedByHello: "awaiting-retry",
        Routed: "routing",
        TurnedAway: "refusal",
        Finished: "over",
    },
    "awaiting-retry": {Connected: "relaying", TurnedAway: "refusal", Finished: "over"},
    "handing-over": {TurnedAway: "refusal", Finished: "over"},
    "refusal": {ToClosing: "closing", ToRejecting: "rejecting"},
    "relaying": {Finished: "over"},
    "serving": {Finished: "over"},
    "closing": {Finished: "over"},
    "rejecting": {Finished: "over"},
    "over": {},
    **{
        stage.state: {
            **{out: node for out, node in OF_FEATURES[kind][1].items() if node in stage.then},
            **_ENDS,
        }
        for kind, stages in STAGES.items()
        for stage in stages
    },
}
"""The stage or choice that follows each outcome. The diagram of the architecture page is drawn from it."""
