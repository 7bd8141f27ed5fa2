"""XMPP, whose streams begin anew inside of TLS (RFC 6120, sections 4.2, 4.3.2 and 5.4)."""

import re
from functools import partial

from txmux.wire.starttls.dialogue import MALFORMED, Answer, ClearProtocol, ClientDialogue, answered
from txmux.wire.steps import RequestRefusedError, Step

_NAMESPACE = "urn:ietf:params:xml:ns:xmpp-tls"
_START_TLS, _PROCEED_TLS = f"<starttls xmlns='{_NAMESPACE}'/>", f"<proceed xmlns='{_NAMESPACE}'/>"
_OFFER = f"<stream:features><starttls xmlns='{_NAMESPACE}'><required/></starttls></stream:features>"
_DECLARATION = "<?xml version='1.0'?>"
_STREAMS = "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
_REFUSAL = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"

_TAG = re.compile(rb"\s*<[^<>]*>")
_PART_OF_TAG = re.compile(rb"\s*(?:<[^<>]*)?")
_PART_OF_STREAM = re.compile(rb"\s*(?:<|$)")
_FEATURES = re.compile(rb"(?s).*?</stream:features>")
_PROCEED = re.compile(rb"\s*<proceed\s[^<>]*(?:/>|></proceed>)")
_ERROR = re.compile(rb"<stream:error|<failure|<stream:features\s*/>")
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
        given = _ATTRIBUTES.findall(tag.decode(errors="replace"))
        found = {"xmlns": "jabber:client", **{name: value for name, _, value in given}}
        if "to" in found:
            dialogue.name = "".join(f" {name}='{value}'" for name, value in found.items())
            opened = f"<stream:stream xmlns='{found['xmlns']}' from='{found['to']}' id='starttls' {_STREAMS}>"
            return Answer(f"{_DECLARATION}{opened}{_OFFER}".encode())
    elif dialogue.name and tag.startswith((b"<starttls ", b"</starttls>")):
        is_whole = tag.startswith(b"</") or tag.endswith(b"/>")
        return Answer(_PROCEED_TLS.encode(), "tls") if is_whole else Answer(b"")
    elif tag == b"</stream:stream>":
        return Answer(tag, "end")
    dialogue.refuse("it sent something else than a stream's header with 'to', and <starttls/>")
    return Answer(_REFUSAL.encode(), "end")


def _steps(name: str) -> list[Step]:
    header = f"{_DECLARATION}<stream:stream{name} {_STREAMS}>".encode()
    return [
        Step(header, partial(_length_of_answer, _FEATURES), f"to a stream{name}"),
        Step(_START_TLS.encode(), partial(_length_of_answer, _PROCEED), "to STARTTLS"),
    ]


def _length_of_answer(expected: re.Pattern[bytes], received: bytes) -> int:
    if not _PART_OF_STREAM.match(received) or _ERROR.search(received):
        raise answered(received)
    answer = expected.match(received)
    if answer is None:
        return 0
    if _NAMESPACE.encode() not in answer[0]:
        raise RequestRefusedError("it answered with features that have no STARTTLS")
    return answer.end()


XMPP = ClearProtocol(lambda _: b"", _length_of, _answer, _steps)
