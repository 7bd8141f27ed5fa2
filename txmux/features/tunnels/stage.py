"""A stage: the request of a client that asks for a tunnel, which is answered here as by a proxy."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from typing_extensions import override

from txmux.access.per_source import source_of
from txmux.classes import define
from txmux.client.configuration import CompiledRoute, RuleLayer
from txmux.features.tunnels.dialogue import FurtherRequest, Login, TunnelDialogue
from txmux.features.tunnels.users import TunnelUsers
from txmux.interfaces import Peeked, Verdict
from txmux.rules.feature import StageMaker
from txmux.rules.model import Refusal, Route
from txmux.tcp.answers import RejectionAnswer, http_response, speaks_http1
from txmux.tcp.stage import Client, Stage, Step
from txmux.tcp.transitions import Detected, Opened, Outcome, TurnedAway
from txmux.telemetry.record import ConnectionState
from txmux.wire.facts import printable
from txmux.wire.http2_opening import PREFACE
from txmux.wire.http_head import parse_request

_NO_ROOM = "too many logins wait to be checked"


def _asks_to_forward(peeked: Peeked) -> Verdict:
    verdict = speaks_http1(peeked)
    if verdict is Verdict.MATCH and peeked.parsed(parse_request).method == "CONNECT":
        return Verdict.NO
    return verdict


def _no_forwarding(peeked: Peeked, _unavailable: bool) -> RejectionAnswer:  # noqa: FBT001
    """Return a response that names the method that is allowed (RFC 9110, section 15.5.6)."""
    why = ": this proxy opens tunnels by CONNECT, as for https, and forwards no request"
    return http_response(peeked, "405 Method Not Allowed", why, "Allow: CONNECT\r\n")


class TunnelMaker(StageMaker):
    """Makes the stages of a route's clients; they share its users, if it has some."""

    asks_by = b"CONNECT "
    answers = ((_asks_to_forward, _no_forwarding),)

    def __init__(self, route: Route) -> None:
        path = route.more.get("tunnel_users")
        self._users = None if path is None else TunnelUsers(route.name, path)

    @override
    def __call__(self, client: Client, then: Step, *of: Any) -> Tunnelling:
        layer, route = of
        return Tunnelling(
            client, layer, route, client.configuration.inside[route.name], self._users
        )

    def crowded(self) -> tuple[int, str] | None:
        return None if self._users is None else self._users.crowded()


@define(eq=False, slots=False)
class Tunnelling(Stage):
    """Waits for the whole request, and for the thread that checks a password.

    Where no byte of the client can change the decision, the answer is given once a server is connected, or cannot be.
    Otherwise it is given now, since a client that waits for it says nothing before.
    """

    state: ClassVar[ConnectionState] = "tunnelling"

    _layer: RuleLayer  # of `_route`
    _route: CompiledRoute
    _inside: RuleLayer
    _users: TunnelUsers | None
    _judging: Deferred[bool | None] | None = attrs.field(default=None, init=False)
    _paused = False

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        client.is_request_cut = False
        if client.received.startswith(PREFACE):
            return TurnedAway(Refusal.REJECT, "denied")
        self._dialogue = TunnelDialogue(client.received, wants_login=self._users is not None)
        client.end_layer()
        client.preambles += (self._dialogue,)
        why = "it is incomplete after detect_timeout"
        seconds = client.configuration.settings.detect_timeout
        self.wait(seconds, lambda: self._unfinished(why, 408))
        return self.on_data()

    @override
    def on_data(self) -> Outcome | None:
        if self._judging is None:
            return self._proceed()
        if len(self._client.received) > self._client.configuration.settings.peek_limit:
            self._client.transport.pauseProducing()
            self._paused = True
        return None

    @override
    def on_finished(self) -> Outcome | None:
        return None if self._judging is not None else self._proceed()

    def _proceed(self, answer: bool | None = None) -> Outcome | None:  # noqa: FBT001 - as `Generator.send`
        client, dialogue = self._client, self._dialogue
        limit = client.configuration.settings.peek_limit
        while True:
            # What is behind the request does not count for the limit, however it is cut.
            room = limit - len(dialogue.received)
            dialogue.received += client.received[:room]
            client.received = client.received[room:]
            event, answer = dialogue.proceed(answer), None
            if isinstance(event, FurtherRequest):
                answer = self._is_for_route(event.head)
            elif isinstance(event, bytes):
                self.send(event)
                if dialogue.kind == "connect":  # it is asked for a login, and may leave
                    self._note(dialogue.problem)
            elif event is not None or not client.received:
                break
            elif len(dialogue.received) == limit:
                return self._refuse("it is longer than peek_limit", 431)
        if isinstance(event, Login):
            return self._check(event)
        if event is None:
            return self._unfinished("it is incomplete", 400) if client.has_finished else None
        return self._open() if event else self._refuse(dialogue.problem)

    def _is_for_route(self, head: bytes) -> bool:
        """Decide a further request as the first one was: by all routes, in their order."""
        client = self._client
        decision = client.start_detection(self._layer).feed(head)
        if decision is None or decision.route is not self._route:
            return False
        client.note_decided(decision.facts)
        return True

    def _check(self, login: Login) -> Outcome | None:
        users, address = self._users, self._client.address
        assert users is not None  # noqa: S101 - otherwise no client is asked to log in
        judged = users.check(source_of(address.host) if address else -1, login)
        if judged is None:
            return self._refuse(_NO_ROOM, 503)
        if isinstance(judged, bool):
            return self._proceed(judged)
        self._judging = judged
        judged.addCallbacks(self._judged, lambda failure: failure.trap(CancelledError) and None)
        return None

    def _judged(self, answer: bool | None) -> None:  # noqa: FBT001 - of a Deferred
        self._judging = None
        self._resume()
        refused = self._refuse(_NO_ROOM, 503) if answer is None else None
        self._client.advance(refused or self._proceed(answer))

    def _open(self) -> Outcome:
        client, dialogue, inside = self._client, self._dialogue, self._inside
        client.received, dialogue.received = dialogue.received + client.received, b""
        dialogue.user = printable(dialogue.user)
        client.note_decided(dialogue.granted)
        client.record.forget("tunnel_error")
        decision = client.start_detection(inside).decide_before_bytes()
        if decision is None or (decision.route is not None and decision.route.is_outer):
            client.open_tunnel()
            return Opened(inside)
        return Detected(inside, decision.route)

    def _refuse(self, why: str, status: int = 0) -> Outcome:
        if status:
            self._dialogue.fail(status)
        self._note(why)
        return TurnedAway(Refusal.REJECT, "denied")

    def _note(self, why: str) -> None:
        self._client.record.note(tunnel=self._dialogue.kind, tunnel_error=printable(why))

    def _unfinished(self, why: str, status: int) -> Outcome:
        dialogue = self._dialogue
        if "tunnel_error" in self._client.record.facts and not dialogue.received:
            dialogue.last = b""  # it has been asked for a login, and has sent nothing since
            return self._refuse(dialogue.problem)
        return self._refuse(why, status)

    @override
    def leave(self) -> None:
        super().leave()
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()
        self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._client.transport.resumeProducing()
