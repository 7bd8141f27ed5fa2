"""Endpoints of which only one can listen, because they want the same port or path."""

from __future__ import annotations

import ipaddress
import itertools
import posixpath
from typing import TYPE_CHECKING

from txmux.rules.model.networks import unmapped
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.datagrams import is_for_datagrams, listening_place
from txmux.rules.reading.endpoints import listening, short_form
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.rules.model import Section, Settings
    from txmux.rules.problems import Problem

_KEYS = ("endpoint", "admin", "metrics")
_SHAREABLE = frozenset({"tcp", "tcp6", "udp", "unix", "systemd"})
Claims = set[tuple[object, ...]]
"""Ports of addresses, as ``(port, family, address)`` with ``"every"`` for every address, and paths of sockets."""

_EVERY_ADDRESS = {"": (4, 6), "0.0.0.0": (4,), "::": (6,)}  # noqa: S104 - compared, not opened
_DEFAULT_INTERFACE = {"tcp": "0.0.0.0", "ssl": "0.0.0.0", "tls": "0.0.0.0", "tcp6": "::"}  # noqa: S104


def conflicts(sections: Iterable[Section]) -> Iterator[Problem]:
    """Find endpoints that want what an earlier one has.

    Args:
        sections: The ``[listen]`` sections, in the order of reading, and ``[txmux]``.

    Yields:
        A problem for each later endpoint, which names the earlier one.
    """
    first: dict[tuple[object, ...], str] = {}
    for section, key in itertools.product(sections, _KEYS):
        for number, item in enumerate(section.items(key)):
            claimed, refused = claims(item.text)
            if key != "endpoint" and item.text.startswith("unix:") and "/" not in item.text[:6]:
                continue  # relative paths of these start elsewhere
            other = next((first[claim] for claim in refused if claim in first), None)
            if other:
                message = (
                    f"{item.text!r} is taken by {other}; "
                    "remove one of the two, or change its port or path"
                )
                yield section.problem(message, key, number)
            for claim in claimed:
                first.setdefault(claim, f"{item.text!r} at {section.path}:{item.line}")


def unshareable(sections: Iterable[Section], settings: Settings) -> Iterator[Problem]:
    """Find endpoints that several workers cannot share, or that a confined one cannot open.

    Args:
        sections: The ``[listen]`` sections.
        settings: They say whether there are such workers.
    """
    which, instead = "several workers cannot share", ["workers = 1"] * (settings.workers > 1)
    if settings.sandbox == "yes":
        which = which if instead else "a confined worker cannot open"
        instead.insert(0, "sandbox = auto")
    for section in sections if instead else ():
        for number, item in enumerate(section.items("endpoint")):
            try:
                short = short_form(listening(item.text))
            except InvalidValueError:
                continue
            kind = item.text.partition(":")[0].lower()
            if short is None and kind not in _SHAREABLE:
                message = (
                    f"{which} an endpoint of type {kind!r}; write ADDRESS:PORT, :PORT, unix: or "
                    f"systemd:, or {' and '.join(instead)}"
                )
                yield section.problem(message, "endpoint", number)


def claims(text: str) -> tuple[Claims, Claims]:
    """Return what an endpoint takes, and what nothing before it may have taken: nothing if it cannot be read."""
    try:
        listening(text)
        if is_for_datagrams(text):
            claimed, refused = of_port(*listening_place(text))
            return of_datagrams(claimed), of_datagrams(refused)
        short = short_form(text)
        return of_port(*short) if short else _of_string(text)
    except InvalidValueError:
        return set(), set()


def of_datagrams(claims: Claims) -> Claims:
    return {("udp", *claim) for claim in claims}


def _of_string(text: str) -> tuple[Claims, Claims]:
    arguments = split_arguments(text)
    kind = arguments.kind.lower()
    if kind == "haproxy":
        return _of_string(text.partition(":")[2])
    if kind not in SERVER:
        return set(), set()
    given = SERVER[kind].check(arguments)
    if kind == "unix":
        return _one(kind, posixpath.normpath(given["address"]))
    if kind == "systemd":
        return _one(kind, given.get("index"), given.get("name"))
    host = given.get("interface") or _DEFAULT_INTERFACE[kind]
    return of_port(host, int(given["port"])) if "port" in given else (set(), set())


def _one(*claim: object) -> tuple[Claims, Claims]:
    return {claim}, {claim}


def of_port(host: str, port: int) -> tuple[Claims, Claims]:
    """Return what a port of an address, or of every address, takes, and what nothing before it may have taken."""
    if not port:
        return set(), set()
    every = _EVERY_ADDRESS.get(host)
    if every:
        some: Claims = {(port, family, "some") for family in every}
        return some | {(port, family, "every") for family in every}, some
    family, address = _address(host)
    this: tuple[object, ...] = (port, family, address)
    return {this, (port, family, "some")}, {this, (port, family, "every")}


def _address(host: str) -> tuple[int, str]:
    try:
        address = unmapped(ipaddress.ip_address(host))
    except ValueError:  # a name, which Twisted takes for an interface
        return 4, host
    return address.version, str(address)
