"""XMPP, whose streams begin anew inside of TLS (RFC 6120, sections 4.2, 4.3.2 and 5.4)."""

import re
from functools import partial

from txmux.wire.starttls.dialogue import MALFORMED, Answer, ClearProtocol, ClientDialogue, answered
from txmux.wire.steps import RequestRefusedError, Step

_TLS = "xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
_STREAMS = "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
_TAG = re.compile(rb"\s*<[^<>]*>")
_PART_OF_TAG = re.compile(rb"\s*(?:<[^<>]*)?")
_START = re.compile(rb"\s*<starttls\s[^<>]*(/)?>")
# Values that need no quoting, so that they can be repeated to a server.
_ATTRIBUTES = re.compile(r"""\s(xmlns|to|from)=(['"])([\w.:@/-]{1,1023})\2""")


def _length_of(data: bytes) -> int:
    tag = _TAG.match(data)
    if tag is not None:
        return tag.end()
    return 0 if _PART_OF_TAG.fullmatch(data) else MALFORMED


def _answer(dialogue: ClientDialogue, command: bytes) -> Answer:
    tag = command.strip()
    if tag.startswith(b"<?xml"):
        return Answer(b"")
    if tag.startswith(b"<stream:stream") and not dialogue.name:
        found = {
            name: value for name, _, value in _ATTRIBUTES.findall(tag.decode(errors="replace"))
        }
        if "to" in found:
            dialogue.name = "".join(f" {name}='{value}'" for name, value in found.items())
            opened = f"<?xml version='1.0'?><stream:stream xmlns='{found.get('xmlns', 'jabber:client')}' from='{found['to']}' id='starttls' {_STREAMS}>"
            features = f"<stream:features><starttls {_TLS}><required/></starttls></stream:features>"
            return Answer(f"{opened}{features}".encode())
    start = _START.match(tag)
    if dialogue.name and start is not None:
        return _go(closed=bool(start[1]))
    if dialogue.name and tag == b"</starttls>":
        return _go(closed=True)
    if tag == b"</stream:stream>":
        return Answer(b"</stream:stream>", "end")
    dialogue.refuse("it sent something else than a stream's header with 'to', and <starttls/>")
    return Answer(
        b"<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
        "end",
    )


def _go(*, closed: bool) -> Answer:
    return Answer(f"<proceed {_TLS}/>".encode(), "tls") if closed else Answer(b"")


def _steps(name: str) -> list[Step]:
    header = f"<?xml version='1.0'?><stream:stream{name} {_STREAMS}>".encode()
    return [
        Step(header, partial(_read, b"</stream:features>"), "when a stream to it began"),
        Step(f"<starttls {_TLS}/>".encode(), partial(_read, b"<proceed "), "to STARTTLS"),
    ]


def _read(expected: bytes, received: bytes) -> int:
    at = received.find(expected)
    if at < 0:
        if not received.lstrip().startswith(b"<"[: len(received.lstrip())]) or any(
            error in received for error in (b"<stream:error", b"<failure", b"<stream:features/>")
        ):
            raise answered(received)
        return 0
    end = received.find(b">", at) + 1
    if end and expected.startswith(b"</") and _TLS.encode()[7:-1] not in received:
        raise RequestRefusedError("it offers no STARTTLS")
    return end


XMPP = ClearProtocol(lambda _: b"", _length_of, _answer, _steps)
