"""``/api/explain``: what listeners make of bytes; ``/api/rules``: the rules as they were read."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from txmux.admin.fields import check_names, text
from txmux.admin.refused import RefusedError
from txmux.admin.resource import Answer, Query, Resource
from txmux.control.documents import rules_document
from txmux.control.report import UnknownError
from txmux.errors import OptionError
from txmux.matchers.payload import bytes_from_hex, bytes_from_text
from txmux.rules.model.networks import unmapped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any


async def _explain(query: Query) -> Answer:
    check_names(query.body, ("listener", "from", "hex", "text"))
    data = _bytes(query.body)
    try:
        found = await query.control.explain(data, text(query.body, "listener"), _from(query.body))
    except UnknownError as problem:
        raise RefusedError(404, str(problem)) from None
    return Answer.json(found)


def _bytes(body: Mapping[str, Any]) -> bytes:
    if ("hex" in body) == ("text" in body):
        raise RefusedError(400, "give the bytes as either 'hex' or 'text'")
    try:
        if "hex" in body:
            return bytes_from_hex("hex", text(body, "hex") or "")
        return bytes_from_text(text(body, "text") or "")
    except OptionError as problem:
        raise RefusedError(400, str(problem)) from None


def _from(body: Mapping[str, Any]) -> IPv4Address | IPv6Address | None:
    address = text(body, "from")
    try:
        return None if address is None else unmapped(ip_address(address))
    except ValueError:
        message = "from: is not an IP address; write one as 192.0.2.1 or 2001:db8::1"
        raise RefusedError(400, message) from None


async def _rules(query: Query) -> Answer:
    return Answer.json(rules_document(query.control.rules))


RESOURCES = (
    # It changes nothing, but what is explained is too long for an address.
    Resource("POST", "/api/explain", _explain),
    Resource("GET", "/api/rules", _rules),
)
