"""The record of one connection, and the states it goes through."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from txmux.classes import define
from txmux.telemetry.reasons import EndReason
from txmux.wire.codec import NUMBER, TEXT, WHOLE, by_name, optional, sent

FACTS = by_name(TEXT)

_MAYBE_TEXT, _MAYBE_WHOLE, _MAYBE_NUMBER = map(optional, (TEXT, WHOLE, NUMBER))


@define
class ConnectionRecord:
    """The record of one connection or flow, filled during its lifetime and written to the access log at its end.

    Attributes:
        time: When the client was accepted, seconds since the epoch.
        id: Unique among all connections of all processes.
        client: The client's real address, ``ADDRESS:PORT``.
        local: The address it connected to; ``None`` if it was refused before that was known.
        route: The route that won, if one did.
        backend: The backend that the connection was forwarded to.
        server: The server that took it.
        server_local: The address that the server saw it come from; ``None`` if there is none, as on a UNIX socket.
        datagrams_in: Datagrams from the client; ``None`` for TCP.
        detect_ms: From accept to the decision.
        connect_ms: From the decision until the connection to a server was established.
        duration_ms: From accept to the end.
        facts: What the log has beside: ``sni``, ``host`` … Those of a decision may be the decision's own, so only `note` adds some.
    """

    time: float = sent(NUMBER)
    id: str = sent(TEXT)
    listener: str = sent(TEXT)
    client: str = sent(TEXT)
    local: str | None = sent(_MAYBE_TEXT, default=None)
    route: str | None = sent(_MAYBE_TEXT, default=None)
    backend: str | None = sent(_MAYBE_TEXT, default=None)
    server: str | None = sent(_MAYBE_TEXT, default=None)
    server_local: str | None = sent(_MAYBE_TEXT, default=None)
    bytes_in: int = sent(WHOLE, default=0)
    bytes_out: int = sent(WHOLE, default=0)
    datagrams_in: int | None = sent(_MAYBE_WHOLE, default=None)
    datagrams_out: int | None = sent(_MAYBE_WHOLE, default=None)
    detect_ms: float | None = sent(_MAYBE_NUMBER, default=None)
    connect_ms: float | None = sent(_MAYBE_NUMBER, default=None)
    duration_ms: float | None = sent(_MAYBE_NUMBER, default=None)
    reason: EndReason | None = sent(_MAYBE_TEXT, default=None)
    facts: Mapping[str, str] = sent(FACTS, factory=dict)

    def note(self, facts: Mapping[str, str] = {}, /, **more: str) -> None:
        self.facts = {**self.facts, **facts, **more}

    def forget(self, *names: str) -> None:
        self.facts = left = {**self.facts}
        for name in names:
            left.pop(name, None)

    def note_tried(self, attempts: Iterable[str]) -> None:
        self.note(tried=", ".join([*filter(None, [self.facts.get("tried")]), *attempts]))

    @property
    def is_clean(self) -> bool:
        """Whether it ended normally. UDP has no end of its own, so an idle timeout is normal for a flow."""
        return self.reason in {"done", "handed-over"} or (
            self.datagrams_in is not None and self.reason == "idle-timeout"
        )


ConnectionState: TypeAlias = str
"""One of `STATES`, or 'over'."""
