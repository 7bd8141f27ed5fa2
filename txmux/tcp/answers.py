"""The short answers, each in the client's own protocol, that a client gets when it is turned away. Pure."""

from collections.abc import Callable
from typing import TypeAlias

from txmux.classes import frozen
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.http2 import http2
from txmux.matchers.redis import redis
from txmux.matchers.ssh import ssh
from txmux.matchers.tls import tls
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.http2_opening import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    SETTINGS,
    frame,
    parse_opening,
    status_section,
)
from txmux.wire.http_head import Stage, parse_request


@frozen
class RejectionAnswer:
    """The answer to a client that has sent certain bytes.

    Attributes:
        data: All of it, from the beginning; may be empty. More bytes of the client only add to it.
        complete: Whether nothing will be added.
    """

    data: bytes
    complete: bool


AnswerRows: TypeAlias = (
    "tuple[tuple[Callable[[Peeked], Verdict], Callable[[Peeked, bool], RejectionAnswer]], ...]"
)


def answer_to(
    peeked: Peeked, *, unavailable: bool, first: AnswerRows = (), rejects: bool = True
) -> RejectionAnswer:
    """Find the answer to a client that is not allowed, or whose servers are unavailable.

    The rows of ``first`` are asked before all others, and even if it is closed without another answer.
    """
    undecided = False
    for speaks, answer in (*first, *_PROTOCOLS * rejects):
        verdict = speaks(peeked)
        if verdict is Verdict.MATCH:
            return answer(peeked, unavailable)
        undecided |= verdict is Verdict.NEED_MORE
    return RejectionAnswer(b"", complete=not undecided)


# TLS

_RECORD_VERSIONS = {"ssl3": 0x0300, "1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303, "1.3": 0x0303}
_ALERT, _FATAL, _UNRECOGNIZED_NAME = 21, 2, 112


def _tls(peeked: Peeked, _unavailable: bool) -> RejectionAnswer:  # noqa: FBT001 - as all answers
    """Return the alert ``unrecognized_name`` (RFC 6066, section 3; RFC 8446, sections 5.1 and 6)."""
    reader: HelloReader = peeked.parsed(parse_client_hello)
    if reader.hello is None or reader.hello.version not in _RECORD_VERSIONS:
        return RejectionAnswer(b"", complete=reader.hello is not None or reader.malformed)
    version = _RECORD_VERSIONS[reader.hello.version].to_bytes(2, "big")
    return RejectionAnswer(
        bytes([_ALERT, *version, 0, 2, _FATAL, _UNRECOGNIZED_NAME]), complete=True
    )


# SSH

_SSH_DISCONNECT = 1
_SSH_REASONS = {False: (1, b"not allowed here"), True: (7, b"no server can be reached")}


def _ssh(_peeked: Peeked, unavailable: bool) -> RejectionAnswer:  # noqa: FBT001
    """Return an identification and SSH_MSG_DISCONNECT (RFC 4253, sections 4.2, 6 and 11.1).

    Clients show the description of a disconnect to their users; lines before the identification they do not.
    """
    reason, text = _SSH_REASONS[unavailable]
    description = len(text).to_bytes(4, "big") + text
    language = bytes(4)
    payload = bytes([_SSH_DISCONNECT]) + reason.to_bytes(4, "big") + description + language
    # The whole packet is a multiple of 8 bytes, 4 of them its length, and at least 4 of them padding.
    padding = 4 + -(1 + len(payload)) % 8
    packet = bytes([padding]) + payload + bytes(padding)
    data = b"SSH-2.0-txmux\r\n" + len(packet).to_bytes(4, "big") + packet
    return RejectionAnswer(data, complete=True)


# HTTP

_STATUS = {False: "403 Forbidden", True: "503 Service Unavailable"}


def speaks_http1(peeked: Peeked) -> Verdict:
    """Return whether a client speaks HTTP/1, once its request line is whole."""
    request = peeked.parsed(parse_request)
    if request.stage is Stage.REFUSED:
        return Verdict.NO
    return Verdict.NEED_MORE if request.stage < Stage.FIELDS else Verdict.MATCH


def _http1(peeked: Peeked, unavailable: bool) -> RejectionAnswer:  # noqa: FBT001
    # It ends the connection (RFC 9110, sections 9.3.2, 15.5.4 and 15.6.4; RFC 9112, section 9.6).
    return http_response(peeked, _STATUS[unavailable])


def http_response(peeked: Peeked, status: str, why: str = "", fields: str = "") -> RejectionAnswer:
    """Return a response that ends the connection, with ``fields`` in its head."""
    body = f"{status}{why}\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"{fields}Connection: close\r\n\r\n"
    )
    is_head = peeked.parsed(parse_request).method == "HEAD"
    return RejectionAnswer((head if is_head else head + body).encode(), complete=True)


_NO_ERROR = bytes(4)


def _http2(peeked: Peeked, unavailable: bool) -> RejectionAnswer:  # noqa: FBT001
    """Return SETTINGS, for which some clients wait, and a response to the first request (RFC 9113, sections 3.4 and 6)."""
    opening = peeked.parsed(parse_opening)
    settings = frame(SETTINGS, 0, 0)
    if opening.fields is None:
        return RejectionAnswer(settings, complete=opening.refused)
    status = status_section(int(_STATUS[unavailable][:3]))
    data = (
        settings
        + frame(SETTINGS, ACK, 0)
        + frame(HEADERS, END_STREAM | END_HEADERS, opening.stream, status)
        + frame(GOAWAY, 0, 0, opening.stream.to_bytes(4, "big") + _NO_ERROR)
    )
    return RejectionAnswer(data, complete=True)


# Redis


def _redis(_peeked: Peeked, unavailable: bool) -> RejectionAnswer:  # noqa: FBT001
    """Return a simple error ("Redis serialization protocol specification", "Simple errors")."""
    text = "no server can be reached" if unavailable else "not allowed here"
    return RejectionAnswer(f"-ERR {text}\r\n".encode(), complete=True)


_PROTOCOLS: AnswerRows = (
    (tls.predicate({}), _tls),
    (ssh.predicate({}), _ssh),
    (speaks_http1, _http1),
    (http2.predicate({}), _http2),
    (redis.predicate({}), _redis),
)
