"""The request for TLS of a PostgreSQL client and the hello after it, read as far as they have come."""

from __future__ import annotations

import attrs

from txmux.interfaces import Exchange
from txmux.wire.client_hello import LONGEST_HELLO, HelloReader, parse_client_hello
from txmux.wire.cursor import copied

__all__ = ["LONGEST_TLS_START", "TlsStart", "parse_tls_start"]

_SSL = Exchange(bytes.fromhex("00000008 04d2162f"), b"S", repeat=True)
# Encryption by Kerberos hides the server's name, and a client whose request is refused asks for TLS next.
_GSSENC = Exchange(bytes.fromhex("00000008 04d21630"), b"N", repeat=False)
_REQUEST = len(_SSL.request)

LONGEST_TLS_START = 2 * _REQUEST + LONGEST_HELLO
"""The most bytes up to the end of the ClientHello."""


@attrs.define(slots=False)
class TlsStart:
    """Its state; frozen once `parse_tls_start` has returned it.

    Attributes:
        malformed: Whether no client that asks for TLS begins like this.
        exchanges: The requests that are there.
        reader: What is known of the ClientHello; ``None`` while TLS has not been asked for.
    """

    malformed: bool = False
    exchanges: tuple[Exchange, ...] = ()
    reader: HelloReader | None = None

    def read(self, data: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning."""
        at = _REQUEST * len(self.exchanges)
        expected = (_SSL,) if self.exchanges else (_GSSENC, _SSL)
        while self.reader is None:
            request = data[at : at + _REQUEST]
            found = next((e for e in expected if e.request.startswith(request)), None)
            if found is None:
                self.malformed = True
                return
            if len(request) < _REQUEST:
                return
            self.exchanges += (found,)
            at += _REQUEST
            expected = (_SSL,)
            if found is _SSL:
                self.reader = HelloReader()
        self.reader = parse_client_hello(data[at:], self.reader)
        self.malformed = self.reader.malformed


def parse_tls_start(data: bytes, earlier: TlsStart | None) -> TlsStart:
    """Read what a client says that asks for TLS, for `Peeked.parsed`.

    That is SSLRequest, maybe after a GSSENCRequest ("PostgreSQL documentation", "Message Flow", "SSL Session
    Encryption" and "GSSAPI Session Encryption"), and the ClientHello that follows when it is granted.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if earlier is not None and earlier.malformed:
        return earlier
    start = copied(earlier) if earlier else TlsStart()
    start.read(data)
    return start
