"""What Consul tells of the instances of a service. Pure."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from txmux.backends.pool.member import ResolvedAddress
from txmux.errors import MuxError, printable
from txmux.wire.jsontext import MISSHAPEN, parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_INSTANCES = 10_000
"""Of one service; which of more are taken, is the same each time."""

_LONGEST_NAME = 255
_LONGEST_INDEX = 20  # digits of a number of 64 bits
_WARNING, _PASSING = "warning", "passing"
_PORTS_END = 1 << 16

_Found: TypeAlias = tuple[str, "tuple[int, int] | None", ResolvedAddress]
"""The state of an instance, the order of its address, if it has one, and the address."""


class NotConsulError(MuxError):
    """The answer is not one of Consul's API."""


@attrs.frozen
class Instances:
    """The instances of a service that clients may be led to.

    Attributes:
        addresses: In an order that does not depend on that of the answer.
        named: Those that are left out, since Consul has a name in place of an address.
    """

    addresses: tuple[ResolvedAddress, ...]
    named: tuple[str, ...] = ()


def instances_in(body: bytes, *, passing: bool) -> Instances:
    """Read an answer to ``/v1/health/service/NAME``.

    As by Consul's DNS, an instance with a critical check is out, and one with a warning has the weight for that.

    Args:
        body: The answer.
        passing: Whether those are out, too, that have a warning.

    Raises:
        NotConsulError: It is something else.
    """
    try:
        entries = parse_json(body)
        found = [_instance(entry) for entry in _listed(entries)]
    except MISSHAPEN as error:
        why = printable(repr(error), _LONGEST_NAME)
        raise NotConsulError(f"its answer is not a list of instances: {why}") from None
    wanted = {_PASSING} if passing else {_PASSING, _WARNING}
    places: dict[tuple[str, int], ResolvedAddress] = {}
    named = set()
    for status, order, one in sorted(found, key=_order):
        if status not in wanted or not 0 < one.port < _PORTS_END:
            continue
        if order is None:
            named.add(printable(one.host, _LONGEST_NAME))
        else:
            places.setdefault((one.host, one.port), one)
    return Instances(tuple(places.values())[:MOST_INSTANCES], tuple(sorted(named)))


def _listed(entries: Any) -> Sequence[Any]:
    if not isinstance(entries, list):
        raise TypeError(type(entries).__name__)
    return entries


def _instance(entry: Any) -> _Found:
    service = entry["Service"]
    host, order = str(service.get("Address") or entry["Node"]["Address"]), None
    with suppress(ValueError):  # a name
        ip = ipaddress.ip_address(printable(host, _LONGEST_NAME))  # whose interface may be any text
        host, order = str(ip), (ip.version, int(ip))
    statuses = {check["Status"] for check in entry.get("Checks") or ()}
    status = _PASSING
    if not statuses <= {_PASSING}:
        status = _WARNING if statuses <= {_PASSING, _WARNING} else "critical"
    weights = service.get("Weights") or {}
    stated = weights.get("Warning" if status == _WARNING else "Passing")
    weight = min(max(0, 1 if stated is None else int(stated)), 65535)
    # One that is to have nobody is for when all others are gone.
    address = ResolvedAddress(host, int(service["Port"]), weight, priority=int(not weight))
    return status, order, address


def _order(found: _Found) -> tuple[tuple[int, int], int, int]:
    _, order, address = found
    return order or (0, 0), address.port, -address.weight


def next_index(before: int, header: str | None) -> int:
    """Return which index the next question has, so that it is answered when something has changed.

    Args:
        before: The index of the question that was answered; 0 if it had none.
        header: The answer's ``X-Consul-Index``.

    Returns:
        The index. 0 is none: the next question is answered at once, since the state of Consul has gone back behind
        what was known. 1 takes the place of an index that is not positive, with which no answer would ever wait.

    Raises:
        NotConsulError: There is no index.
    """
    is_number = header is not None and header.isdecimal() and header.isascii()
    if header is None or not is_number or len(header) > _LONGEST_INDEX:
        raise NotConsulError("its answer has no X-Consul-Index, so it is not Consul's API")
    index = int(header)
    return 0 if index < before else max(1, index)
