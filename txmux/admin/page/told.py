"""Explanations as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def connection_told(answer: Mapping[str, Any]) -> str:
    """Write how the decision on a live connection came about.

    Args:
        answer: As `txmux.control.explaining.explain_connection` gives it.
    """
    return "\n".join([*_routes(answer), _winner(answer)])


def bytes_told(document: Mapping[str, Any]) -> str:
    """Write what listeners make of bytes.

    Args:
        document: As ``txmux explain --json`` writes it.
    """
    return "\n".join(
        line
        for stream in document["streams"]
        for unit in ("byte" if stream["datagrams"] is None else "datagram",)
        for listener in stream["listeners"]
        for line in (
            f"listener {listener['listener']}",
            *_routes(listener, unit),
            _decision(listener, unit),
        )
    )


def _routes(answer: Mapping[str, Any], unit: str = "byte") -> Iterator[str]:
    for route in answer["routes"]:
        inside = f" inside of {route['inside']}" if route.get("inside") else ""
        dry = ", a dry run" if route["dry_run"] else ""
        yield f"  {route['says'] or '':10} route {route['route']}{inside}{dry}{_why(route, unit)}"


def _why(route: Mapping[str, Any], unit: str) -> str:
    if route["excluded_by"]:
        return f", which {route['excluded_by']} excludes"
    if route["error"]:
        return f": {route['error']}"
    if route["at"] is not None:
        return f", sure at {unit} {route['at']}"
    return f", needs up to {route['needs_up_to']} {unit}s" if route["needs_up_to"] else ""


def _decision(listener: Mapping[str, Any], unit: str) -> str:
    found = listener["decision"]
    if found is not None:
        return f"  leads to {_leads(found)}, known at {unit} {found['at']}"
    return f"  undecided; at the deadline it leads to {_leads(listener['at_deadline'])}"


def _leads(found: Mapping[str, Any]) -> str:
    by = f"route {found['route']}" if found["route"] else found["by"]
    return f"{found['to']} by {by}" if found["to"] else by


def _winner(answer: Mapping[str, Any]) -> str:
    by, after = answer["by"], answer["bytes"]
    if by is None:
        return f"undecided after {after} bytes"
    what = f"route {answer['route']}" if by == "route" else str(by)
    if after is None:
        return f"decided by {what}, in another process; what the routes said is not known here"
    return f"decided by {what}, after {after} bytes"
