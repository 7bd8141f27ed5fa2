"""Matches a PROXY protocol header that is a part of the payload.

Version 1 is matched at the end of its line, of at most 107 bytes; version 2 at the end of its fixed part of 16 bytes:
signature, version and command, family and transport, length.
"""

from txmux.classes import frozen
from txmux.interfaces import Peeked, Verdict
from txmux.wire.plain import PlainMatcher
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete, decode
from txmux.wire.proxyprotocol.header import InvalidHeader

_LONGEST_LINE = 107
_START_OF_V2 = 16


@frozen
class _ProxyPredicate:
    longest: int = _LONGEST_LINE
    first_bytes: frozenset[int] = frozenset(b"P\r")

    def __call__(self, peeked: Peeked, /) -> Verdict:
        is_v2 = peeked.startswith(b"\r")
        # The fields of version 2 may be many, and would be read again with every byte.
        answer = _decoded(peeked.data[:_START_OF_V2] if is_v2 else peeked.data)
        if answer is None:
            return Verdict.NO
        complete = len(peeked) >= _START_OF_V2 if is_v2 else isinstance(answer, Decoded)
        return Verdict.MATCH if complete else Verdict.NEED_MORE

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        answer = _decoded(peeked.data)
        if isinstance(answer, Decoded) and answer.header.source:
            return {"source": str(answer.header.source)}
        return {}


def _decoded(data: bytes) -> Decoded | Incomplete | None:
    try:
        return decode(data)
    except InvalidHeader:
        return None


proxy = PlainMatcher(
    "proxy",
    "a PROXY protocol header, version 1 or 2",
    _ProxyPredicate(),
    source="HAProxy's proxy-protocol.txt, section 2",
)
