"""Routes with ``tunnel``: what they need so that they lead only where the rules say, and the file of their users."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from txmux.rules.model import Backend, Listener, Route, Section
from txmux.rules.model.backend import backends_of
from txmux.rules.problems import Problem
from txmux.rules.reading.values import split_words

LARGEST_USERS = 1 << 20  # bytes
_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_COSTS = range(4, 15)
_MATCHES = "match = http method=CONNECT, match = socks5 or match = socks4"


def read_users(data: bytes) -> tuple[dict[str, bytes], list[str]]:
    """Read a file of ``htpasswd -B``: the hashes of users, and what is wrong, each with the number of its line."""
    users: dict[str, bytes] = {}
    problems = []
    for number, line in enumerate(data.splitlines(), 1):
        user, _, hashed = line.strip().partition(b":")
        if not user or user.startswith(b"#"):
            continue
        match = _HASH.fullmatch(hashed)
        if match is None:
            problems.append(f":{number}: is no USER:HASH of bcrypt; make it by 'htpasswd -nB USER'")
        elif int(match[1]) not in _COSTS:
            problems.append(f":{number}: has the cost {int(match[1])}; make it with at most 14")
        else:
            users[user.decode("utf-8", "replace")] = hashed
    if not users:
        problems.append(": has no users; add one by 'htpasswd -B FILE USER'")
    return users, problems


def asks_for_tunnel(section: Section) -> bool:
    return [item.text for item in section.items("tunnel")] == ["yes"]


def contradictions(section: Section) -> Iterator[Problem]:
    """Find what does not go together with ``tunnel`` in one section."""
    if not asks_for_tunnel(section):
        if "tunnel_users" in section.entries:
            yield section.problem(
                "does nothing without 'tunnel = yes'; add that, or remove this", "tunnel_users"
            )
        return
    if "terminate_tls" in section.entries:
        message = "a route either ends TLS or opens tunnels; for both, put a route with this under the one that ends TLS"
        yield section.problem(message, "tunnel")
    for number, item in enumerate(section.items("match")):
        words = split_words(item.text)
        is_connect = words[0] == "http" and "method=CONNECT" in words
        if not is_connect and words[0] not in {"socks5", "socks4"}:
            yield section.problem(
                f"{item.text!r} asks for no tunnel; write {_MATCHES}", "match", number
            )
        elif words[0] == "socks4" and "tunnel_users" in section.entries:
            message = "SOCKS 4 has no passwords; remove this, or put it into a route without 'tunnel_users'"
            yield section.problem(message, "match", number)


def open_tunnels(listeners: Sequence[Listener], routes: Sequence[Route]) -> Iterator[Problem]:
    """Find tunnels that lead nowhere, or to servers of which clients choose the port although nothing limits that."""
    for route in routes:
        if not route.tunnel:
            continue
        inner = [other for other in routes if route.name in other.under]
        if not inner and route.outcome is None:
            message = (
                f"leads nowhere: add 'backend' with fixed servers, or with server = {{host}}:{{port}} and 'allow_names'; "
                f"or routes with 'under = {route.name}'"
            )
            yield route.section.problem(message, "tunnel")
        outcomes = [one.outcome for one in _inside(route, routes)]
        if route.outcome is None:
            outcomes += [line.outcome for one in listeners for line in one.silent]
            outcomes += [one.default for one in listeners]
        for backend in backends_of(outcomes):
            if _is_open(backend):
                message = f"clients of the tunnel choose the port of {backend.servers[0].text!r}; add 'allow_networks' to [backend {backend.name}], or write the port"
                yield route.section.problem(message, "tunnel")


def _inside(route: Route, routes: Iterable[Route]) -> list[Route]:
    found = [route]
    for outer in found:
        found += [one for one in routes if outer.name in one.under and one not in found]
    return found


def _is_open(backend: Backend) -> bool:
    is_limited = backend.allow_names is not None or backend.allow_networks is not None
    return not is_limited and any(
        not server.port and server.kind == "tcp" for server in backend.servers
    )
