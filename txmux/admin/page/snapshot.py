"""All that the page is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@attrs.frozen
class History:
    """What was measured in the last ten minutes.

    Attributes:
        times: In seconds since 1970, ascending.
        connections: New ones in a second.
        active: Those that there were.
        bytes: Both ways, in a second.
    """

    times: Sequence[float] = ()
    connections: Sequence[float] = ()
    active: Sequence[float] = ()
    bytes: Sequence[float] = ()


@attrs.frozen
class Snapshot:
    """The answers of the API at one moment, under the names of its resources.

    Attributes:
        now: When that was, in seconds since 1970.
        status: ``/api/status``.
        routes: ``/api/routes``.
        traffic: Bytes a second of each route, by listener.
        backends: ``/api/backends``.
        connections: ``/api/connections``, filtered.
        is_cut: Whether there are more of them.
        recent: ``/api/recent``.
        rules: ``/api/rules``.
        history: For the charts.
        warnings: What is not as it was asked for, a sentence each.
        connection: The one that was asked for: its facts, and the explanation of its decision.
        explained: What is said of bytes that were asked about.
    """

    now: float
    status: Mapping[str, Any]
    routes: Sequence[Mapping[str, Any]] = ()
    traffic: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    backends: Sequence[Mapping[str, Any]] = ()
    connections: Sequence[Mapping[str, Any]] = ()
    is_cut: bool = False
    recent: Sequence[Mapping[str, Any]] = ()
    rules: Sequence[Mapping[str, Any]] = ()
    history: History = attrs.field(factory=History)
    warnings: Sequence[str] = ()
    connection: Mapping[str, Any] | None = None
    explained: str = ""
