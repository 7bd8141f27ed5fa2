"""What ``/api/connections`` reports of a live connection: `FIELDS`, of which the answer, its OpenAPI schema and the table in the reference are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, get_type_hints

from txmux.client.served import Served
from txmux.telemetry.record import STATES, ConnectionRecord

Positive = Annotated[int, 1]  # a whole number from 1 on


class RowField(NamedTuple):
    """A field.

    Attributes:
        type: Of its value: see `txmux.admin.api.openapi.schema_of`.
        meaning: For the reference, in Markdown; fields of the same meaning share a line there.
        is_optional: Whether it is omitted when ``None``.
    """

    name: str
    type: Any
    meaning: str
    value: Callable[[_LiveConnection], Any]
    is_optional: bool = False


class _LiveConnection(NamedTuple):
    record: ConnectionRecord
    state: str
    age_ms: float
    idle_ms: float
    bytes_in: int
    bytes_out: int
    datagrams_in: int | None
    datagrams_out: int | None
    version: int


def _logged(*names: str) -> Iterator[RowField]:
    types = get_type_hints(ConnectionRecord)
    meaning = "as in the [access log](access-log.md#keys); `null` if not known yet"
    for name in names:
        yield RowField(name, types[name], meaning, attrgetter(f"record.{name}"))


_AGE = "milliseconds since the client was accepted"
_IDLE = "milliseconds since a byte came from either side, or else since it was accepted"
_BYTES = "bytes from the client and to it until now"
_DATAGRAMS = "the same in datagrams. Only a flow of [UDP](rules.md#udp) has these two"
_WORKER = "the number of its worker; `null` where there are no workers"
_VERSION = "the version of the rules under which it was accepted; kept in an upgrade"

FIELDS = (
    *_logged("id", "listener", "client", "local", "route", "backend", "server"),
    RowField("state", STATES, "[see below](#states)", lambda live: live.state),
    RowField("age_ms", float, _AGE, lambda live: round(live.age_ms, 1)),
    RowField("idle_ms", float, _IDLE, lambda live: round(max(0.0, live.idle_ms), 1)),
    RowField("bytes_in", int, _BYTES, lambda live: live.bytes_in),
    RowField("bytes_out", int, _BYTES, lambda live: live.bytes_out),
    RowField("datagrams_in", int, _DATAGRAMS, attrgetter("datagrams_in"), is_optional=True),
    RowField("datagrams_out", int, _DATAGRAMS, attrgetter("datagrams_out"), is_optional=True),
    RowField("generation", int, _VERSION, lambda live: live.version),
    RowField("worker", Positive | None, _WORKER, lambda _: None),  # the supervisor knows it
    *_logged("facts"),
)


def row_of(one: Served) -> dict[str, Any]:
    relayed, age = one.relayed(), one.elapsed_ms()
    idle = age
    if relayed.last_at:
        idle = min(age, (one.runtime.clock.seconds() - relayed.last_at) * 1000)
    datagrams_in, datagrams_out = relayed.datagrams or (None, None)
    live = _LiveConnection(
        one.record,
        one.state,
        age,
        idle,
        relayed.bytes_in,
        relayed.bytes_out,
        datagrams_in,
        datagrams_out,
        one.configuration.version,
    )
    values = ((field, field.value(live)) for field in FIELDS)
    return {
        field.name: value for field, value in values if value is not None or not field.is_optional
    }
