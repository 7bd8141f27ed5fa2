"""Clients by their names in the tests, and what they hear."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from tests.interop.children import PATIENCE
from tests.interop.originals import HTTP

_SPEAKING = threading.Lock()
"""One client at a time is between its connection and what it says first: if it had to wait for others there, it would be a silent one."""
_OLD = "old"
_DATA = {
    "silent": b"",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "http": HTTP,
    "post": b"POST /upload HTTP/1.1\r\nHost: b.example\r\n\r\n",
    "upgrade": b"GET /x HTTP/1.1\r\nHost: b.example\r\nUpgrade:  WebSocket\r\n\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "openvpn": bytes.fromhex("000e38a1b2c3d4e5f60708") + bytes(5),
    "rdp": bytes.fromhex("0300002b26e00000000000")
    + b"Cookie: mstshash=alice\r\n"
    + bytes.fromhex("0100080003000000"),
    "xmpp": b"<?xml version='1.0'?><stream:stream to='jabber.example' version='1.0'>",
    "socks": b"\x05\x01\x00",
    "binary": b"\x00\x01\x02\x03\r\n",
    "text": b"hello there\r\n",
    "half": b"\x16\x03\x01",
}


def heard(client: str, port: int, *, source: str = "127.0.0.1") -> str:
    """Be a client, and give the first line that is heard; nothing if the connection ends before.

    Args:
        client: ``hello [NAME] [alpn=A,B] [old]``, the first message of TLS and no more, of TLS 1.2 if it is old;
            ``tls [NAME] [alpn=A,B] [cert=FILE] DATA``, TLS with `DATA` inside of it; or `DATA`: one of those above.
        port: Where to connect on 127.0.0.1.
        source: The address that it comes from.
    """
    kind, *words = client.split()
    secured = kind == "tls"
    if secured:
        *words, kind = words
    # All is made before the connection, lest a busy machine make a silent client of any.
    context, name = _trusting_all(words), _name(words)
    data = _hello(words) if kind == "hello" else _DATA[kind]
    with contextlib.suppress(ConnectionError, ssl.SSLError), contextlib.ExitStack() as opened:
        with _SPEAKING:
            stream = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))
            if secured:
                stream = context.wrap_socket(stream, server_hostname=name)
            opened.enter_context(stream)
            stream.sendall(data)
        return _answer(stream)
    return ""


def _answer(stream: socket.socket) -> str:
    found = b""
    while not found.endswith(b"\n") and (piece := stream.recv(4096)):
        found += piece
    return found.decode("latin-1").partition("\n")[0].strip()


def _trusting_all(words: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    offered = [word.removeprefix("alpn=") for word in words if word.startswith("alpn=")]
    if _OLD in words:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    for word in words:
        if word.startswith("cert="):
            context.load_cert_chain(word.removeprefix("cert="))
    if offered:
        context.set_alpn_protocols(offered[0].split(","))
    return context


def _name(words: list[str]) -> str | None:
    names = [word for word in words if "=" not in word and word != _OLD]
    return names[0] if names else None


def _hello(words: list[str]) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _trusting_all(words).wrap_bio(incoming, outgoing, server_hostname=_name(words))
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
