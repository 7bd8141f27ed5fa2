"""Certificates for names of several places: browsers use one connection of HTTP/2 for all names of a certificate (RFC 9113, section 9.1.1)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from txmux.classes import frozen
from txmux.client.tls.contexts import Contexts
from txmux.detection.detector import Detector
from txmux.errors import MuxError
from txmux.features.misdirected.places import Place, opening, place_of
from txmux.interfaces import Transport
from txmux.net.tls.client_hello import client_hello
from txmux.rules.lint.coverage import lines_of
from txmux.rules.model import Listener, Route, Rules, TlsSettings
from txmux.rules.model.networks import EVERY_CLIENT
from txmux.rules.problems import Problem

_FIELDS = (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b""), (b":path", b"/")
_ANY = "any-name."
"""What stands for ``*.`` at the beginning of a pattern."""
_WILD = frozenset("*?~")


@frozen
class _CheckedLayer:
    detector: Detector[Any]
    default: object


class Names:
    """The names by which the routes of a listener, and those inside their TLS, choose, and the place that each leads to."""

    def __init__(self, rules: Rules, listener: Listener) -> None:
        self._rules, self._default = rules, listener.default
        self._outer, self._inner = self._layer(listener, self._default), dict[str, _CheckedLayer]()
        self._places: dict[str, Place | None] = {}
        self.routes = self._outer.detector.routes
        inside = [
            one for route in self.routes if route.terminate_tls for one in rules.routes_of(route)
        ]
        self.patterns: dict[str, str] = {}
        cases = [case for _, _, line in lines_of((*self.routes, *inside)) for case in line.cases]
        for option, pattern in (
            pair for case in cases if not case.negated for pair in case.options
        ):
            name = _ANY + pattern[2:] if pattern.startswith("*.") else pattern
            if option in {"sni", "host"} and name and _WILD.isdisjoint(name):
                self.patterns.setdefault(name, pattern)
        self._below: dict[str, list[str]] = defaultdict(list)
        for name in self.patterns:
            self._below[name.partition(".")[2]].append(name)

    def _layer(self, owner: Listener | Route, default: object) -> _CheckedLayer:
        # Routes for only some clients: these have the same certificates.
        routes = [
            attrs.evolve(route, clients=EVERY_CLIENT, client_cert=None, during=())
            for route in self._rules.routes_over(owner, Transport.TCP)
        ]
        return _CheckedLayer(Detector(routes), default)

    def _inside(self, route: Route) -> _CheckedLayer:
        if route.name not in self._inner:
            default = self._default if route.outcome is None else route.outcome
            self._inner[route.name] = self._layer(route, default)
        return self._inner[route.name]

    def place(self, name: str) -> Place | None:
        if name not in self._places:
            layers = self._outer, self._inside
            hello = client_hello(name, "h2", "http/1.1")
            self._places[name] = place_of(name, hello, opening(_FIELDS, name), layers, None, None)
        return self._places[name]

    def covered(self, certificate: Iterable[str]) -> Iterator[tuple[str, Place]]:
        """Yield the names that a certificate with these names is for, and their places."""
        for named in certificate:
            exact = [named] if named in self.patterns else []
            for name in self._below[named[2:]] if named.startswith("*.") else exact:
                place = self.place(name)
                if place is not None:
                    yield name, place

    def shared(self, own: Place, certificate: Iterable[str]) -> str:
        """Describe a name of another place that a certificate with these names is for, too; empty if there is none."""
        for name, place in self.covered(certificate):
            if place != own:
                route = place.route or place.outer
                whose = "'default'" if route is None else f"[route {route.name}]"
                return f"{self.patterns[name]!r}, which belongs to {whose}"
        return ""


def names_of_listeners(rules: Rules) -> Iterator[Names]:
    return (Names(rules, one) for one in rules.listeners if one.transport is Transport.TCP)


def shared_certificates(rules: Rules) -> Iterator[Problem]:
    """Find certificates that are shown with HTTP/2, and are for names of several places."""
    reported: set[tuple[str, str]] = set()
    for names in names_of_listeners(rules):
        for route in names.routes:
            tls = route.terminate_tls
            if tls is None or "h2" not in tls.alpn:
                continue
            for file, certificate, others in _certificates(tls):
                own = next(
                    (
                        place
                        for name, place in names.covered(certificate)
                        if place.outer is not None
                        and place.outer.name == route.name
                        and (name in certificate or name not in others)
                    ),
                    None,
                )
                other = "" if own is None else names.shared(own, certificate)
                if other and (route.name, file) not in reported:
                    reported.add((route.name, file))
                    message = f"'{file}' is also for {other}, so browsers send requests for that by connections for this route, are answered 421, and connect again; to spare them that, use a certificate for each, or take h2 out of 'alpn'"
                    yield attrs.evolve(
                        route.section.problem(message, "terminate_tls"), warning=True
                    )


def _certificates(tls: TlsSettings) -> list[tuple[str, list[str], set[str]]]:
    """Return the file and the names of each certificate, and the names in others; none that a feature gets, each of which has its own name."""
    if tls.managed:
        return []
    try:
        contexts = Contexts(tls)
    except (MuxError, OSError):  # which others report
        return []
    found = [(row["file"], row["names"]) for row in contexts.shown]
    return [
        (file, names, {name for other, its in found if its is not names for name in its})
        for file, names in found
    ]
