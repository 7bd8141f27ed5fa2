"""The record of one connection, and the states it goes through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import attrs

from txmux.classes import define
from txmux.telemetry.reasons import EndReason

_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),  # JSON has one kind of number
    "Mapping[str, str]": (dict,),
    "EndReason": (str,),
    "None": (type(None),),
}


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

    time: float
    id: str
    listener: str
    client: str
    local: str | None = None
    route: str | None = None
    backend: str | None = None
    server: str | None = None
    server_local: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    datagrams_in: int | None = None
    datagrams_out: int | None = None
    detect_ms: float | None = None
    connect_ms: float | None = None
    duration_ms: float | None = None
    reason: EndReason | None = None
    facts: Mapping[str, str] = attrs.Factory(dict)

    def note(self, facts: Mapping[str, str] = {}, /, **more: str) -> None:
        """Add facts; others of the same names are replaced."""
        self.facts = {**self.facts, **facts, **more}

    def forget(self, *names: str) -> None:
        self.facts = left = {**self.facts}
        for name in names:
            left.pop(name, None)

    def note_tried(self, attempts: Iterable[str]) -> None:
        """Add attempts to connect to servers that have failed, after earlier ones."""
        self.note(tried=", ".join([*filter(None, [self.facts.get("tried")]), *attempts]))

    @property
    def is_clean(self) -> bool:
        """Whether it ended normally. UDP has no end of its own, so an idle timeout is normal for a flow."""
        return self.reason in {"done", "handed-over"} or (
            self.datagrams_in is not None and self.reason == "idle-timeout"
        )


_TYPES = [
    (field.name, tuple(kind for word in str(field.type).split(" | ") for kind in _KINDS[word]))
    for field in attrs.fields(ConnectionRecord)
]


def read_record(values: Mapping[str, Any]) -> ConnectionRecord:
    """Read the record of another process, which may be of another version; raises `TypeError` as `check_types` does."""
    record = ConnectionRecord(**{name: values[name] for name, _ in _TYPES if name in values})
    check_types(record)
    return record


def check_types(record: ConnectionRecord) -> None:
    """Check the types of a record from another process, before they fail in the access log.

    Raises:
        TypeError: A value has a wrong type.
    """
    for name, kinds in _TYPES:
        if not isinstance(getattr(record, name), kinds):
            raise TypeError(f"the record has another type of value as {name!r}")
    checked_facts(record.facts)


def checked_facts(facts: Any) -> dict[str, str]:
    """Return facts from another process; raises `TypeError` if they are none."""
    if not isinstance(facts, dict) or not all(isinstance(fact, str) for fact in facts.values()):
        raise TypeError("the facts of a connection have a value that is no text")
    return facts


ConnectionState: TypeAlias = str
"""One of `STATES`, or 'over'."""
