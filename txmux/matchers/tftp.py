"""Matches the request of a TFTP client, to read or to write a file.

The name of the file and the mode, each with a NUL at its end, and maybe pairs of options and their values, to the end of
the datagram.
"""

import re

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_REQUEST = re.compile(
    rb"""
      \0 [\x01\x02]
      (?P<path>[^\x00-\x1f\x7f]{1,255}) \0
      (?i:netascii|octet|mail) \0
      (?: [!-~]{1,64} \0 [!-~]{0,255} \0 ){0,16}
    """,
    re.VERBOSE,
)
_FIRST = b"\0"


def _read_request(cursor: Cursor) -> dict[str, str]:
    cursor.literal(_FIRST)
    cursor.take(1)
    match = _REQUEST.fullmatch(cursor.data)
    if match is None:
        raise MalformedError
    return {"path": match["path"].decode("latin-1")}


tftp = MessageMatcher(
    "tftp",
    "TFTP, requests to read or to write a file",
    _read_request,
    facts=("path",),
    source="RFC 1350, section 5; RFC 2347",
)
