"""Handing over clients' sockets, ``handover:/PATH``, and where that cannot be: what was read cannot be given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.rules.model import Handover
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.values import socket_path, split_words
from txmux.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from txmux.rules.model import Listener, Route, Section
    from txmux.rules.problems import Problem

HANDOVER = "handover:"
"""With this begins an outcome that hands over the client's socket."""

_PLAIN = frozenset({"tcp", "tcp6", "systemd"})
"""The endpoint strings whose clients have a plain TCP socket."""

_Led = tuple["Section", str, "int | None"]


def is_handover(text: str) -> bool:
    """Return whether a text hands over sockets; with a port behind the word, it is a host of that name."""
    return text.startswith(HANDOVER) and not text.removeprefix(HANDOVER).isdecimal()


def handover(text: str) -> Handover:
    """Read ``handover:/PATH``.

    Raises:
        InvalidValueError: What is wrong with it.
    """
    words = split_words(text)
    if len(words) > 1:
        raise InvalidValueError(
            f"{' '.join(words[1:])!r} is not expected after the path; remove it, or write quotes around a path with blanks"
        )
    path = words[0].removeprefix(HANDOVER)
    if not path:
        raise InvalidValueError(f"{text!r} names no UNIX socket; write {HANDOVER}/run/x.sock")
    return Handover(str(socket_path(path)))


def misplaced(
    listeners: Iterable[Listener], routes: Iterable[Route], relay: str = "auto"
) -> Iterator[Problem]:
    """Find sockets that are to be handed over where some bytes of them may have been taken, or that are not plain ones.

    Args:
        listeners: Those of the rules.
        routes: Those of the rules.
        relay: What carries bytes, as in the rules.

    Yields:
        A problem for each key that leads there.
    """
    known = tuple(routes)
    ends = {route.name: route for route in known if route.terminate_tls}
    told: set[tuple[str, str, int | None]] = set()
    for route in known:
        if isinstance(route.outcome, Handover) and (message := _inside(route, ends)):
            yield route.section.problem(message, "backend")
            told.add((route.section.header, "backend", None))
    for listener in listeners:
        own = [route for route in known if route.stands_under(listener) and not route.dry_run]
        led = [*_led(listener, own)]
        message = _why_not(listener, own, relay) if led else ""
        for section, key, number in led if message else ():
            if (section.header, key, number) not in told:
                told.add((section.header, key, number))
                yield section.problem(message, key, number)
        if any(key != "backend" for _, key, _ in led):
            yield from _left_inside(listener, ends)


def _inside(route: Route, ends: Mapping[str, Route]) -> str:
    """Return why a route hands over what is inside of TLS, or nothing."""
    if route.terminate_tls is not None:
        return "TLS ends here, so that the socket is of no use to anybody else; lead it to a server"
    over = next((name for name in route.under if name in ends), "")
    if over:
        return (
            f"[route {over}] ends TLS, so that the socket is of no use to anybody else; lead it to a server, "
            "or put it under a listener"
        )
    return ""


def _led(listener: Listener, routes: Iterable[Route]) -> Iterator[_Led]:
    """Yield what of a listener leads to where sockets are handed over."""
    for number, line in enumerate(listener.silent):
        if isinstance(line.outcome, Handover):
            yield listener.section, "silent", number
    if isinstance(listener.default, Handover):
        yield listener.section, "default", None
    for route in routes:
        if isinstance(route.outcome, Handover):
            yield route.section, "backend", None


def _why_not(listener: Listener, routes: Iterable[Route], relay: str) -> str:
    """Return why a listener cannot hand over sockets, or nothing."""
    where = f"[listen {listener.name}]"
    if listener.transport is Transport.UDP:
        return f"sockets are handed over for TCP, but {where} is for UDP; lead it to a server"
    if relay == "portable":
        return "sockets cannot be handed over with 'relay = portable'; remove that, or lead it to a server"
    for text in listener.endpoints:
        kind = text.partition(":")[0].lower()
        is_string = kind[:1].isalpha()
        if (is_string and kind not in _PLAIN) or "domain=unix" in text.lower():
            return f"{text!r} of {where} has no plain TCP sockets to hand over; write ADDRESS:PORT there, or lead it to a server"
    answering = next((route for route in routes if _answers(route)), None)
    if answering is not None:
        return (
            f"[route {answering.name}] of {where} may have answered the client first, and what it asked cannot be given back; "
            "put one of the two under another listener, or lead it to a server"
        )
    return ""


def _answers(route: Route) -> bool:
    return any(
        getattr(line.predicate, "exchanges", None) is not None for line in route.alternatives
    )


def _left_inside(listener: Listener, ends: Mapping[str, Route]) -> Iterator[Problem]:
    """Find routes that end TLS and leave clients to a listener that hands over their sockets."""
    for route in ends.values():
        if route.outcome is None and _comes_to(route, listener, ends):
            yield route.section.problem(
                f"clients that no route takes inside of TLS go where [listen {listener.name}] leads them, which hands over "
                "sockets, and these are of no use to anybody else; add 'backend'",
                "terminate_tls",
            )


def _comes_to(route: Route, listener: Listener, ends: Mapping[str, Route]) -> bool:
    """Return whether clients of a listener come to a route that ends TLS, at once or inside of others."""
    ways = [route]
    for way in ways:
        if way.stands_under(listener):
            return True
        ways += [ends[name] for name in way.under if name in ends and ends[name] not in ways]
    return False


def is_led_to(outcomes: Iterable[object]) -> bool:
    return any(isinstance(outcome, Handover) for outcome in outcomes)
