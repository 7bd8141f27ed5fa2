"""XMPP, whose streams begin anew inside TLS (RFC 6120, sections 4.2, 4.3.2 and 5.4)."""

import re
from functools import partial

from txmux.features.starttls.dialogue import (
    MALFORMED,
    ClearProtocol,
    ClientDialogue,
    Then,
    answered,
)
from txmux.wire.steps import RequestRefusedError, Step

_NAMESPACE = "urn:ietf:params:xml:ns:xmpp-tls"
_OFFER = f"<stream:features><starttls xmlns='{_NAMESPACE}'><required/></starttls></stream:features>"
_OPEN = "<?xml version='1.0'?><stream:stream{} xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
_REFUSAL = b"<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"

_PROCEED_WITH_TLS: tuple[bytes, Then] = (f"<proceed xmlns='{_NAMESPACE}'/>".encode(), "tls")

_TAG = re.compile(rb"\s*<[^<>]*>")
_PART_OF_TAG = re.compile(rb"\s*(?:<[^<>]*)?")
_ATTRIBUTES = re.compile(r"""\s(xmlns|to|from)=(['"])([\w.:@/-]{1,1023})\2""")
"""With values that need no quoting, so that they can be repeated to a server."""
_PART_OF_STREAM = re.compile(rb"\s*(?:<|$)")
_STARTTLS = re.compile(
    rf"<([\w.-]+:)?starttls\s(?:[^<>]*\s)?xmlns(?(1):[\w.-]+)\s*=\s*(['\"]){_NAMESPACE}\2[^<>]*>"
)
_END_OF_STARTTLS = re.compile(r"</(?:[\w.-]+:)?starttls\s*>")
_REQUIRED = re.compile(r"</?(?:[\w.-]+:)?required\s*/?>")
"""What a server may write in its offer; some clients repeat it."""
_FEATURES = re.compile(rb"(?s).*?</stream:features>")
_PROCEED = re.compile(rb"\s*<proceed\s[^<>]*(?:/>|></proceed>)")
_ERROR = re.compile(rb"<stream:error|<failure|<stream:features\s*/>")


def _length_of(data: bytes) -> int:
    tag = _TAG.match(data)
    if tag is not None:
        return tag.end()
    return 0 if _PART_OF_TAG.fullmatch(data) else MALFORMED


def _answer(dialogue: ClientDialogue, command: bytes) -> tuple[bytes, Then]:
    tag = command.decode(errors="replace").strip()
    if tag.startswith("<stream:stream") and not dialogue.name:
        found = {"xmlns": "jabber:client"}
        found |= {name: value for name, _, value in _ATTRIBUTES.findall(tag)}
        if "to" in found:
            dialogue.name = "".join(f" {name}='{value}'" for name, value in found.items())
            own = f" xmlns='{found['xmlns']}' from='{found['to']}' id='starttls'"
            return (_OPEN.format(own) + _OFFER).encode(), ""
    elif dialogue.name and (_STARTTLS.fullmatch(tag) or _REQUIRED.fullmatch(tag)):
        is_whole = tag.endswith("/>") and _STARTTLS.match(tag)
        return _PROCEED_WITH_TLS if is_whole else (b"", "")
    elif dialogue.name and _END_OF_STARTTLS.fullmatch(tag):
        return _PROCEED_WITH_TLS
    elif tag.startswith("<?xml") or tag == "</stream:stream>":
        return (b"", "") if tag.startswith("<?") else (tag.encode(), "end")
    dialogue.refuse("it sent something else than a stream's header with 'to', and <starttls/>")
    return _REFUSAL, "end"


def _steps(name: str) -> tuple[Step, ...]:
    start = f"<starttls xmlns='{_NAMESPACE}'/>".encode()
    return (
        Step(
            _OPEN.format(name).encode(),
            partial(_length_of_answer, _FEATURES),
            f"when it was sent a stream{name}",
        ),
        Step(start, partial(_length_of_answer, _PROCEED), "when it was asked for STARTTLS"),
    )


def _length_of_answer(expected: re.Pattern[bytes], received: bytes) -> int:
    if not _PART_OF_STREAM.match(received) or _ERROR.search(received):
        raise answered(received)
    answer = expected.match(received)
    if answer is not None and _NAMESPACE.encode() not in answer[0]:
        raise RequestRefusedError("it answered with features that have no STARTTLS")
    return 0 if answer is None else answer.end()


XMPP = ClearProtocol(_length_of, _answer, _steps)
