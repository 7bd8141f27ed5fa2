"""Routes with ``tunnel``: what they need so that they lead only where the rules say, and the file of their users."""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from txmux.errors import how_to_install
from txmux.rules.model import Listener, Route, Section, Settings
from txmux.rules.model.backend import backends_of, blamed
from txmux.rules.model.rules import each_once
from txmux.rules.problems import Problem
from txmux.rules.reading.values import words_if_right

# More than 2**14 rounds take seconds.
_HASH = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}")


def read_users(data: bytes) -> tuple[dict[str, bytes], list[str]]:
    """Read a file of ``htpasswd -B``: the hashes of users, and what is wrong, each with the number of its line."""
    users: dict[str, bytes] = {}
    problems = []
    for number, line in enumerate(data.splitlines(), 1):
        user, _, hashed = line.strip().partition(b":")
        if _HASH.fullmatch(hashed):
            users[user.decode("utf-8", "replace")] = hashed
        elif user and not user.startswith(b"#"):
            problems.append(
                f":{number}: no USER:HASH of bcrypt with a cost up to 14; run 'htpasswd -nB USER'"
            )
    return users, problems if users else [*problems, ": no user is in it, so nobody can log in"]


def asks_for_tunnel(section: Section) -> bool:
    return [item.text for item in section.items("tunnel")] == ["yes"]


def contradictions(section: Section, _: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what does not go together with ``tunnel`` in one section."""
    has_users = "tunnel_users" in section.entries
    if not asks_for_tunnel(section):
        if has_users:
            message = "does nothing without 'tunnel = yes'; add that, or remove this"
            yield section.problem(message, "tunnel_users")
        return
    if has_users and importlib.util.find_spec("bcrypt") is None:
        message = (
            f"needs the package bcrypt, which is not installed; run: {how_to_install('tunnel')}"
        )
        yield section.problem(message, "tunnel_users")
    if "terminate_tls" in section.entries:
        yield section.problem("this route ends TLS; put another with 'tunnel' under it", "tunnel")
    for number, item in enumerate(section.items("match")):
        name, *options = words_if_right(item.text) or ["socks5"]
        is_right = name in {"socks5", "socks4"} or (name == "http" and "method=CONNECT" in options)
        if not is_right:
            message = (
                f"{item.text!r} asks for no tunnel; only http method=CONNECT, socks5 and socks4 do"
            )
            yield section.problem(message, "match", number)
        elif name == "socks4" and has_users:
            message = "SOCKS 4 has no passwords; put this into a route without 'tunnel_users'"
            yield section.problem(message, "match", number)


def open_tunnels(
    listeners: Sequence[Listener], routes: Sequence[Route], _: Settings, owners: Mapping[int, str]
) -> Iterator[Problem]:
    """Find tunnels without a destination, or to servers whose port clients choose without a limit."""
    inside = defaultdict[tuple[str, str | None], list[Route]](list)  # of each owner
    for route in routes:
        for name in route.under:
            inside[name, owners.get(id(route.section))].append(route)
    tunnels = [route for route in routes if route.more.get("tunnel")]
    ends = {end.name: end for end in routes if end.is_outer} if tunnels else {}
    for route in tunnels:
        within = each_once([route], lambda one: inside[one.name, owners.get(id(one.section))])
        outcomes = [one.outcome for one in within]
        if outcomes == [None]:
            message = f"has no destination; add routes with 'under = {route.name}', or a 'backend' with fixed servers or 'allow_names'"
            yield route.section.problem(message, "tunnel")
        if route.outcome is None:
            over = [*each_once([route], lambda one: filter(None, map(ends.get, one.under)))]
            own = [its for its in listeners if any(end.stands_under(its) for end in over)]
            outcomes += [outcome for listener in own for outcome in listener.outcomes]
        for backend in backends_of(outcomes):
            # What clients name needs 'allow_names', as a problem of its own section says.
            free = [
                server for server in backend.servers if server.kind == "tcp" and not server.port
            ]
            ports = [server.text for server in free if not server.placeholder]
            if ports and backend.allow_names is None and backend.allow_networks is None:
                message = f"clients choose the port of {ports[0]!r}; add 'allow_networks' to [backend {backend.name}]"
                yield from blamed(route.section, "tunnel", message, outcomes, backend, owners)
