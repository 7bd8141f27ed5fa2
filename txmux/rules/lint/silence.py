"""Warnings about server-first listeners, silent clients, and matchers for the other transport."""

from collections.abc import Iterable, Iterator

from txmux.interfaces import Transport
from txmux.rules.lint.scopes import ClientSet, scopes, set_of, sure
from txmux.rules.model import Backend, Listener, Outcome, Refusal, Route, Rules, Silence
from txmux.rules.problems import Problem


def ineffective_with_server_first(rules: Rules) -> Iterator[Problem]:
    """Find keys without effect, because clients get ``default`` before they can send anything."""
    for listener in rules.listeners:
        if listener.first != "server":
            continue
        section = listener.section
        if isinstance(listener.default, Refusal):
            message = "'default' has no server that could speak; name one there"
            yield section.problem(message, "first")
        if "silent" in section.entries:
            message = "has no effect with 'first = server', which sends every client to 'default'; remove one of the two"
            yield section.problem(message, "silent")
        bypassed = (route for route in rules.routes_of(listener) if _is_bypassed(route, rules))
        never = [f"[route {route.name}]" for route in bypassed]
        if never:
            message = f"no client reaches {', '.join(never)}: every one goes to 'default' at once; remove one of the two"
            yield section.problem(message, "first")


def _is_bypassed(route: Route, rules: Rules) -> bool:
    """Return whether all that a route belongs to are listeners that ask no route."""
    listeners = [listener for listener in rules.listeners if route.stands_under(listener)]
    if not set(route.under) <= {listener.name for listener in listeners}:
        return False
    return all(listener.first == "server" for listener in listeners)


def unreachable_silent_lines(rules: Rules) -> Iterator[Problem]:
    """Find lines of ``silent`` that no client comes to."""
    for listener in rules.listeners:
        section, everyone = listener.section, set_of(listener.clients)
        for number, (_, clients) in enumerate(silent_clients(rules, listener, everyone)):
            if everyone and not clients:
                message = (
                    "no client is left for this line: earlier ones, or routes with 'match = silent', have them all, "
                    "or 'allow' and 'deny' keep them out; put it first, or remove it"
                )
                yield section.problem(message, "silent", number)


def silent_clients(
    rules: Rules, listener: Listener, clients: ClientSet
) -> Iterator[tuple[Silence, ClientSet]]:
    """Yield the lines of ``silent``, each with those of a listener's clients that it applies to."""
    for route in rules.routes_of(listener) if listener.silent else ():
        if route.takes_silent and not (route.dry_run or route.during or route.client_cert):
            clients -= sure(route.clients)
    for line in listener.silent:
        yield line, clients & set_of(line.clients)
        clients -= sure(line.clients)


SPEAK_FIRST = frozenset({21, 25, 110, 143, 587, 3306, *range(5900, 5910)})
"""The ports of servers whose clients wait for them: FTP, SMTP, POP3, IMAP, MySQL and VNC."""


def waits_for_both(port: int) -> str:
    """Return what is wrong with ``match = any`` for a server at such a port."""
    usual = f"and a server at port {port} usually waits to speak, too"
    return f"'any' waits for the client's first byte, {usual}: write 'match = silent'"


def any_before_speakers(rules: Rules) -> Iterator[Problem]:
    """Find routes by ``any`` to servers that usually speak first, and get no silent client."""
    speaking: set[object] = set()
    for listener in rules.listeners:
        speaking |= servers_of([listener.default] if listener.first == "server" else [])
        speaking |= servers_of(line.outcome for line in listener.silent)
    speaking |= servers_of(route.outcome for route in rules.routes if route.takes_silent)
    for route in rules.routes:
        outcome = route.outcome
        if route.is_outer or not isinstance(outcome, Backend) or outcome.transport is Transport.UDP:
            continue
        ports = {server.port for server in outcome.servers}
        lines = [number for number, one in enumerate(route.alternatives) if one.text == "any"]
        if lines and ports <= SPEAK_FIRST and speaking.isdisjoint(servers_of([outcome])):
            message = waits_for_both(min(ports))
            yield route.section.problem(message, "match", lines[0])


def matchers_of_other_transport(rules: Rules) -> Iterator[Problem]:
    """Find matchers for UDP in routes that only have clients of TCP, and the other way round."""
    over: dict[str, frozenset[Transport]] = {}
    for owner in (scope.owner for scope in scopes(rules)):
        its = frozenset([owner.transport if isinstance(owner, Listener) else Transport.TCP])
        for route in rules.routes_of(owner):
            over[route.name] = its if route.name not in over else over[route.name] | its
    for route in rules.routes:
        transports = over.get(route.name, frozenset())
        if len(transports) != 1:
            continue
        [there] = transports
        other = Transport.UDP if there is Transport.TCP else Transport.TCP
        for number, line in enumerate(route.alternatives):
            if line.for_transport(there) is None:
                message = (
                    f"{line.text!r} works only over {other.value.upper()}, and all clients of this route come by "
                    f"{there.value.upper()}; put it into a route of its own, or remove it"
                )
                yield route.section.problem(message, "match", number)


def servers_of(outcomes: Iterable[Outcome | None]) -> set[object]:
    """Return the places of the servers of backends, such as are the same however they are written."""
    return {
        server.text
        if server.query or server.kind == "endpoint"
        else (server.host, server.port, server.path)
        for outcome in outcomes
        if isinstance(outcome, Backend)
        for server in outcome.servers
    }
