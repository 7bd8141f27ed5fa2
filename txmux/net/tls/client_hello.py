"""What a TLS client of this machine's OpenSSL says first."""

import ssl
from contextlib import suppress
from functools import lru_cache


def client_hello(name: str | None = None, *protocols: str) -> bytes:
    """Return the first flight of a client that asks for a server's name and offers protocols by ALPN.

    Raises:
        ValueError: TLS has no such name, or no such protocol.
    """
    sent = ssl.MemoryBIO()
    try:
        client = _context(protocols).wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    except (UnicodeError, TypeError, ssl.SSLError):
        raise ValueError(f"{name!r} is not a host name") from None
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


@lru_cache(8)
def _context(protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    for protocol in protocols:
        if not (protocol.isascii() and 0 < len(protocol) < 256):
            raise ValueError(
                f"{protocol!r} is not a protocol's name: write 1 to 255 ASCII characters, as h2"
            )
    if protocols:
        context.set_alpn_protocols(protocols)
    return context
