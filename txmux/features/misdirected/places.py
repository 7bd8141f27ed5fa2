"""Where a client of TLS that ends here would get by a connection of its own. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
from hpack import Encoder
from typing_extensions import override

from txmux.classes import frozen
from txmux.detection.detector import Detection, Detector
from txmux.rules.model import Backend, Refusal, Route
from txmux.transport import normal_host
from txmux.wire.cursor import MalformedError
from txmux.wire.hello.records import records, take_hello
from txmux.wire.http2_opening import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    LARGEST_FRAME,
    PREFACE,
    SETTINGS,
    frame,
)
from txmux.wire.http_head import host_without_port

Fields: TypeAlias = "Iterable[tuple[bytes, bytes]]"
_SESSION_ID = 4 + 2 + 32  # its offset in a hello
_NAMES = (b":authority", b"host")
_LONGEST_NAME = 255  # bytes, with a port; longer ones are of no site
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""A host with its port, as clients write it. Servers differ in what they take out of ``a@name``, and of two names."""


def header_frames(stream: int, flags: int, section: bytes) -> bytes:
    """Put a header section into frames that every peer takes (RFC 9113, sections 4.2 and 4.3)."""
    pieces = [section[at : at + LARGEST_FRAME] for at in range(0, len(section), LARGEST_FRAME)]
    last = len(pieces) - 1
    return b"".join(
        frame(
            CONTINUATION if number else HEADERS,
            (0 if number else flags) | (END_HEADERS if number == last else 0),
            stream,
            piece,
        )
        for number, piece in enumerate(pieces)
    )


def names_of(fields: Fields) -> Sequence[str]:
    """Return the host that a request asks for, or hosts of which a server may take any; none if it asks for a tunnel (RFC 9113, section 8.5).

    Raises:
        MalformedError: It names none, or what is no host.
    """
    read = [*fields]
    if all(name != b":path" for name, _ in read):
        return ()
    named = [bytes(value) for which in _NAMES for name, value in read if name == which and value]
    if not named or not all(len(n) <= _LONGEST_NAME and _HOST.fullmatch(n) for n in named):
        raise MalformedError
    return [*dict.fromkeys(normal_host(host_without_port(n.decode("latin-1"))) for n in named)]


def opening(fields: Fields, name: str) -> bytes:
    """Write how a client begins that asks for the same of a name."""
    named = [(one, name.encode("latin-1") if one in _NAMES else value) for one, value in fields]
    section = Encoder().encode(named)
    return PREFACE + frame(SETTINGS, 0, 0) + header_frames(1, 0, section)


def with_name(stream: bytes, name: str) -> bytes:
    """Return the hello that a stream begins with, with another server name in it.

    Raises:
        MalformedError: It is in a record with something else.
    """
    message, _ = take_hello(stream)
    at = _SESSION_ID + 1 + message[_SESSION_ID]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    head, extensions, at = message[4:at], b"", at + 2
    host = name.encode("latin-1")
    named = b"".join(
        (len(host) + more).to_bytes(2, "big") + kind for more, kind in ((3, b"\0"), (0, host))
    )
    while at < len(message):
        end = at + 4 + int.from_bytes(message[at + 2 : at + 4], "big")
        is_name = message[at : at + 2] == b"\0\0"
        extension = b"\0\0" + len(named).to_bytes(2, "big") + named
        extensions += extension if is_name else message[at:end]
        at = end
    body = head + len(extensions).to_bytes(2, "big") + extensions
    return records(b"\1" + len(body).to_bytes(3, "big") + body, stream[1:3])


class _QuietDetection(Detection[Any]):
    """Decides without learning facts, and without counting what dry runs would have taken."""

    @override
    def _facts(self, *_: object) -> dict[str, str]:
        return {}


@frozen
class Place:
    """What a client reaches.

    Attributes:
        servers: The same as of another place if it makes no difference to clients.
        route: The route that decides; ``None`` is the default.
        outer: The route that has ended TLS before, if one has.
    """

    servers: object
    route: Route | None = attrs.field(eq=False)
    outer: Route | None = attrs.field(eq=False)


class Layer(Protocol):
    """Routes, and where clients go whom none of them takes."""

    @property
    def detector(self) -> Detector[Any]: ...
    @property
    def default(self) -> object: ...


def place_of(
    name: str,
    hello: bytes,
    request: bytes,
    layers: tuple[Layer, Callable[[Route], Layer]],
    *client: Any,
) -> Place | None:
    """Return what a client reaches by a connection of its own; ``None`` if the rules do not know its name, and ask it for no certificate.

    Args:
        name: That it asks for.
        hello: The hello with it, and
        request: the bytes inside.
        layers: The one that decides on the hello, and a function that returns those inside of its routes.
        client: As for `Detector.start_detection`.
    """
    layer, inside = layers
    route, outer, authority = _decide(layer, hello, client), None, None
    if route is not None and route.terminate_tls is not None:
        layer, outer = inside(route), route
        authority = route.terminate_tls.verification
        route = _decide(layer, request, client)
    outcome = layer.default if route is None else route.outcome or route.name
    if route is None and isinstance(outcome, Refusal):
        asks = outer and outer.terminate_tls and outer.terminate_tls.client_ca
        # With another certificate than the client has shown here, if any, a route inside may take it.
        return Place((outcome, authority), None, outer) if asks else None
    outcome = getattr(outcome, "backend", outcome)
    if isinstance(outcome, Backend):
        outcome = outcome.servers, name if outcome.names else ""
    return Place((outcome, authority), route, outer)


def _decide(layer: Layer, data: bytes, client: tuple[Any, ...]) -> Route | None:
    if not layer.detector.routes:
        return None
    detection = _QuietDetection(layer.detector, *client)
    route: Route | None = (detection.feed(data) or detection.finish()).route
    return route
