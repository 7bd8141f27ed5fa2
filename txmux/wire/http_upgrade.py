"""The Upgrade field of the first HTTP/1 request of a stream, read as far as it has come."""

from __future__ import annotations

import itertools
import re

import attrs

from txmux.wire.cursor import copied
from txmux.wire.http_head import (
    HEAD_LIMIT,
    MOST_FIELDS,
    UNREAD,
    Request,
    Stage,
    parse_request,
)

__all__ = ["UpgradeRequest", "parse_upgrade"]

_REQUEST_LINE = re.compile(rb"(?:\r\n){0,2}[^\n]*\n")
_MOST_PROTOCOLS = 16
"""More are not looked at; clients offer one or two."""


@attrs.define(slots=False)
class UpgradeRequest:
    """Its state; frozen once `parse_upgrade` has returned it.

    Attributes:
        request: The request, as far as its line has come; what its fields tell may be missing.
        protocols: The names of the protocols that are offered, in lower case and without their versions.
        done: Whether these are all of them.
        compared: What they were compared with, by id, without success. It only saves time.
    """

    request: Request = attrs.field(eq=False)
    protocols: tuple[str, ...] = ()
    done: bool = False
    compared: set[int] = attrs.field(factory=set, init=False, eq=False)

    _at: int = 0
    """Where the line begins that comes next."""
    _searched: int = attrs.field(default=0, eq=False)
    """Its end is not before this."""
    _unread_until: int = attrs.field(default=0, eq=False)
    """With fewer bytes than this, and no end among those that were not searched, nothing is new."""
    _fields: int = 0
    """How many fields came before it."""

    def read(self, head: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning, once the request's line is there."""
        if not self._at:
            self._at = self._searched = _REQUEST_LINE.match(head).end()  # type: ignore[union-attr]
        while not self.done and (end := head.find(b"\n", self._searched)) >= 0:
            self._read_field(head[self._at : end].removesuffix(b"\r"))
            self._at = self._searched = end + 1
        self._searched = len(head)
        self._unread_until = min(len(head) + UNREAD, HEAD_LIMIT)
        if len(head) == HEAD_LIMIT:
            self.done = True

    def _read_field(self, line: bytes) -> None:
        self._fields += 1
        self.done = not line or self._fields == MOST_FIELDS
        name, _, value = line.partition(b":")
        if name.lower() == b"upgrade":
            items = value.decode("latin-1").split(",", _MOST_PROTOCOLS)
            names = (item.partition("/")[0].strip(" \t").lower() for item in items)
            found = itertools.chain(self.protocols, filter(None, names))
            self.protocols = tuple(itertools.islice(found, _MOST_PROTOCOLS))


def parse_upgrade(data: bytes, earlier: UpgradeRequest | None) -> UpgradeRequest:
    """Read the protocols that a client offers to change to (RFC 9110, section 7.8); for `Peeked.parsed`.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if (
        earlier is not None
        and len(data) < earlier._unread_until
        and data.find(b"\n", earlier._searched) < 0
    ):
        return earlier  # a client may send byte by byte
    if earlier is None or earlier.request.stage < Stage.FIELDS:
        request = parse_request(data, earlier.request if earlier else None)
        if earlier is not None and request is earlier.request:
            return earlier
        upgrade = UpgradeRequest(request)
    elif earlier.done:
        return earlier
    else:
        upgrade = copied(earlier)
        upgrade.compared = set()
    if upgrade.request.stage >= Stage.FIELDS:
        upgrade.read(data[:HEAD_LIMIT])
    return upgrade
