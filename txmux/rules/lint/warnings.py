"""The warnings of `txmux check` about a rules file without errors.

Only what is certain is reported. A wrong warning would teach readers to ignore the others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

import attrs

from txmux.detection.plan import conditions_of, tried_one_by_one
from txmux.interfaces import Transport
from txmux.rules.collecting import uncollected
from txmux.rules.installed import finders
from txmux.rules.lint import access, destinations
from txmux.rules.lint.coverage import forget_lines, lines_of
from txmux.rules.lint.patterns import suspicious_patterns
from txmux.rules.lint.reach import unreachable_routes
from txmux.rules.lint.scopes import (
    NO_CLIENTS,
    WITH_ADDRESS,
    ClientSet,
    RouteScope,
    scopes,
    set_of,
    sure,
)
from txmux.rules.lint.secrets import FileUser, open_secrets, secret_files
from txmux.rules.lint.silence import (
    any_before_speakers,
    ineffective_with_server_first,
    matchers_of_other_transport,
    servers_of,
    silent_clients,
    unreachable_silent_lines,
)
from txmux.rules.model import Backend, Listener, Outcome, Refusal, Route, Rules
from txmux.rules.problems import Problem
from txmux.rules.reading.files import unread_among
from txmux.rules.reading.ini import QUOTES, split_list

_MANY_ROUTES = 200
_OF_ADDRESSES = frozenset({"tcp", "udp", "ssl", "tls"})  # endpoints whose clients have addresses


def lint(rules: Rules, user: FileUser | None = None, folders: Iterable[str] = ()) -> list[Problem]:
    """Return warnings in the order of files and lines; rules made in Python get none.

    Args:
        rules: The rules.
        user: That of the service.
        folders: Those that its workers may read.
    """
    if not rules.files.texts:
        return []
    with uncollected():
        listed = warnings(rules, _problems(rules, user, folders))
    set_of.cache_clear()
    forget_lines()
    return listed


def _problems(rules: Rules, user: FileUser | None, folders: Iterable[str]) -> Iterator[Problem]:
    yield from open_secrets(rules, secret_files(rules), user, folders)
    for find in _FINDERS:
        yield from find(rules)


def warnings(rules: Rules, problems: Iterable[Problem]) -> list[Problem]:
    """Make problems warnings, unless they are notes, and sort them by files and lines."""
    order = {path: number for number, path in enumerate(rules.files.texts)}
    placed = map(rules.placed, problems)
    found = [attrs.evolve(problem, warning=not problem.note) for problem in placed]
    return sorted(found, key=lambda problem: (order[problem.path], problem.line))


def _without_clients(rules: Rules) -> Iterator[Problem]:
    for listener in rules.listeners:
        kinds = {text.partition(":")[0].lower() for text in listener.endpoints}
        by_address = all(not kind.isalpha() or kind in _OF_ADDRESSES for kind in kinds)
        without_address = kinds == {"unix"} and not getattr(
            listener.accept_proxy_from, "by_unix", False
        )
        possible = ~WITH_ADDRESS if without_address else WITH_ADDRESS if by_address else ~NO_CLIENTS
        if set_of(listener.clients) & possible:
            continue
        if without_address:
            message = "lets no client in: those of a UNIX socket have no address; remove this, or, for a proxy's clients, add 'accept_proxy_from = unix'"
            yield listener.section.problem(message, "allow")
        elif listener.clients.excluded is not None:
            covered, advice = "all of 'allow'", "correct one of the two"
            if listener.clients.allowed is None:
                covered, advice = "every address", "name only those that are to stay out"
            message = f"lets no client in: it covers {covered}; {advice}"
            yield listener.section.problem(message, "deny")
        else:
            message = "names no network, so no client can connect; add one, or remove this"
            yield listener.section.problem(message, "allow")


def _open_to_all(rules: Rules) -> Iterator[Problem]:
    """Find backends that routes deny to some clients, but that ``silent`` or ``default`` gives them."""
    for scope in scopes(rules):
        owner, keeps = scope.owner, "'from' or 'not_from' here"
        outcomes: list[tuple[str, int | None, Outcome | None, str, ClientSet]]
        if isinstance(owner, Listener):
            keeps = "'allow' or 'deny' here"
            outcomes = [
                ("silent", number, line.outcome, "say nothing", clients)
                for number, (line, clients) in enumerate(
                    silent_clients(rules, owner, scope.clients)
                )
            ]
            outcomes.append(("default", None, owner.default, "match no route", scope.clients))
        else:
            condition = "match no route under this one"
            if any(route.client_cert for route in rules.routes_of(owner)):
                keeps = "an earlier route under this one"
            outcomes = [("backend", None, owner.outcome, condition, scope.clients)]
        for key, number, outcome, condition, clients in outcomes:
            guards = _guards(rules, scope, outcome, clients)
            if guards:
                names = " and ".join(f"[route {route.name}]" for route in guards)
                message = (
                    f"clients that {_kept_by(guards)} of {names} keep away come to the same server if they {condition}; "
                    f"keep them out by {keeps}, or use another server"
                )
                yield owner.section.problem(message, key, number)


def _guards(
    rules: Rules, scope: RouteScope, outcome: Outcome | None, clients: ClientSet
) -> list[Route]:
    """Return the routes with an outcome, if together they do not serve all clients of a scope."""
    servers = servers_of([outcome])
    routes = [
        route
        for route in rules.routes_of(scope.owner)
        if not route.dry_run and servers & servers_of([route.outcome])
    ]
    served = NO_CLIENTS
    for route in routes:
        if not access.needs_certificate(route):
            served |= sure(route.clients)
    return routes if routes and (clients & WITH_ADDRESS) - served else []


def _kept_by(guards: Iterable[Route]) -> str:
    certificates = any(route.client_cert is not None for route in guards)
    return "'from' and 'not_from'" if not certificates else "'client_cert', 'from' and 'not_from'"


def _beyond_peek_limit(rules: Rules) -> Iterator[Problem]:
    # Thousands of routes share what they have of one scope.
    by_route: dict[str, dict[str, Listener]] = {}
    for scope in scopes(rules):
        # A datagram is looked at as a whole, however long it is.
        over_tcp = {one.name: one for one in scope.listeners if one.transport is Transport.TCP}
        for route in rules.routes_of(scope.owner):
            before = by_route.get(route.name)
            by_route[route.name] = over_tcp if before is None else {**before, **over_tcp}
    for route, number, line in lines_of(rules.routes):
        needed = max((line.known[option].needs for option, _ in line.given), default=0)
        what = f"looks at what often is in the first {needed} bytes only"
        advice = "raise that"
        if line.name == "payload" or (line.name == "regex" and "within" in line.options):
            needed = line.predicate.longest
            what = f"{'never decides: it ' * (line.name == 'payload')}looks at {needed} bytes"
            advice = "raise that, or look at fewer"
        limits = [
            f"{listener.peek_limit} ([listen {listener.name}])"
            for listener in by_route.get(route.name, {}).values()
            if listener.peek_limit < needed
        ]
        if limits:
            message = f"{line.text!r} {what}, but 'peek_limit' is {' and '.join(limits)}; {advice}"
            yield route.section.problem(message, "match", number)


def _idle_backends(rules: Rules) -> Iterator[Problem]:
    """Find backends that nothing uses, and keys without what they are about, as for clients that never wait; `hold_limit` is also for ``txmux hold``."""
    used = {outcome.name for outcome in rules.outcomes() if isinstance(outcome, Backend)}
    for backend in rules.backends.values():
        section = backend.section
        if backend.name not in used:
            yield section.problem("nothing uses it; name it in a route, or remove it")
        limits = (backend.max_connections, *(server.max_connections for server in backend.servers))
        if backend.queue and not any(limits):
            without = "no client ever waits without 'max_connections'"
            yield section.problem(f"{without}, which says when they do; add that", "queue")
        if backend.end_on_down != "no" and backend.check is None:
            message = "no server is ever down without 'check'; add that"
            yield section.problem(message, "end_on_down")


def _servers_without_clients(rules: Rules) -> Iterator[Problem]:
    """Find backends all of whose servers are down, or final."""
    for backend in rules.backends.values():
        up = [server for server in backend.servers if not server.down]
        if not up and not backend.hold:
            message = "all of them are down, so every client goes to 'fallback'; remove one 'down'"
            yield backend.section.problem(message, "server")
        if up and all(server.final for server in up):
            message = (
                "no client gets a server here: those that are not down are all final, which have a share only while another server is up; "
                "add one that is not, or take the word from one"
            )
            yield backend.section.problem(message, "server")


def _idle_servers(rules: Rules) -> Iterator[Problem]:
    """Find servers that are there twice, and keys without effect on their choice."""
    for backend in rules.backends.values():
        section, is_first = backend.section, backend.balance == "first"
        if backend.slow_start and is_first:
            message = "it has no effect with 'balance = first', which uses the order; remove it"
            yield section.problem(message, "slow_start")
        if backend.servers[0].depends_on_client:
            keys = ["balance"] if len(backend.servers) == 1 else []
            for key in [*keys, *(() if is_first else ("slow_start",))]:
                if key in section.entries:
                    message = f"it has no effect with {backend.servers[0].text!r}, which is another server for each client; remove it"
                    yield section.problem(message, key)
        earlier: set[str] = set()
        for number, server in enumerate(backend.servers):
            if server.weight > 1 and is_first:
                message = "the weight has no effect with 'balance = first', which uses the order; remove it"
                yield section.problem(message, "server", number)
            if server.text in earlier:
                message = f"{server.text!r} is there twice; remove one, and write weight=2 if it is to get twice as many clients"
                yield section.problem(message, "server", number)
            earlier.add(server.text)


def unchecked_backends(rules: Rules) -> Iterator[Problem]:
    """Find backends of several servers of which clients alone notice that one is dead."""
    for backend in rules.backends.values():
        servers = [server for server in backend.servers if not server.down]
        is_watched = backend.check is not None or any(
            server.depends_on_client or server.query for server in servers
        )
        advice = "check = tcp"
        if backend.transport is Transport.UDP:
            is_watched |= bool(backend.eject and backend.eject.unanswered)
            advice = "eject = unanswered=5"
        if len(servers) > 1 and not is_watched:
            message = f"without 'check', one of its {len(servers)} servers that is dead is found only by clients that fail there; add for example {advice}"
            yield attrs.evolve(backend.section.problem(message, "server"), note=True)


def slow_routes(rules: Rules) -> Iterator[Problem]:
    """Find owners of very many routes that are tried one by one, as the page on performance says."""
    seen: set[tuple[int, ...]] = set()
    owners: list[Listener | Route] = [*rules.listeners]
    for owner in owners + [route for route in rules.routes if route.is_outer]:
        routes = rules.routes_of(owner)
        alike = tuple(map(id, routes))
        if len(routes) < _MANY_ROUTES or alike in seen:
            continue
        seen.add(alike)
        its: Sequence[Route] = routes
        over_udp = owner.transport is Transport.UDP
        if over_udp or any(line.datagrams for route in routes for line in route.alternatives):
            transport = Transport.UDP if over_udp else Transport.TCP
            its = [*filter(None, (route.for_transport(transport) for route in routes))]
        count = tried_one_by_one(its)
        if count >= _MANY_ROUTES:
            message = (
                f"{count} routes are tried one by one for a client that none of them takes; they are found at once by lines "
                "with whole names, such as sni=, host= or database=, or *.example.com"
            )
            yield attrs.evolve(owner.section.problem(message), note=True)
        conditions = len({*map(conditions_of, its)})
        if conditions >= _MANY_ROUTES:
            message = (
                f"its routes have {conditions} different 'from', 'not_from', 'client_cert' or 'during', which are looked at one by "
                "one for clients whose names are not known yet; use the same for several routes"
            )
            yield attrs.evolve(owner.section.problem(message), note=True)


def closed_listeners(rules: Rules) -> Iterator[Problem]:
    """Find listeners that refuse every client, whatever it sends; unless a file that another program writes may have routes."""
    if rules.settings.watch_rules and not all(rules.files.included.values()):
        return
    outcomes: dict[str, list[Outcome | None]] = {}
    for scope in scopes(rules):
        reached: list[Outcome | None] = [route.outcome for route in rules.routes_of(scope.owner)]
        if isinstance(scope.owner, Listener):
            reached += scope.owner.outcomes
        for listener in scope.listeners:
            outcomes.setdefault(listener.name, []).extend(reached)
    for listener in rules.listeners:
        if all(one is None or isinstance(one, Refusal) for one in outcomes[listener.name]):
            message = (
                "every client is turned away: neither a route nor 'default' or 'silent' names a server; "
                "add a route, or a server there"
            )
            yield listener.section.problem(message)


def _empty_includes(rules: Rules) -> Iterator[Problem]:
    section = rules.settings.section
    for item in () if rules.settings.watch_rules else section.items("include"):
        for pattern in split_list(item.text):
            if not rules.files.included.get(pattern, (pattern,)):
                message = f"{pattern!r} matches no file; correct it, or create one"
                yield section.problem(message, "include", line=section.line_of(item))


def _unread_files(rules: Rules) -> Iterator[Problem]:
    """Find what is not read in the places of files, such as folders: also what takes the place of a missing file that is mounted into a container."""
    section = rules.settings.section
    for item in section.items("include"):
        for pattern in split_list(item.text):
            with suppress(OSError, ValueError):  # who reads the rules reports it
                for name, what in unread_among(rules.path.parent, pattern):
                    message = f"{name!r} {what}, so nothing is read there; put a file in its place, or rename it"
                    yield section.problem(message, "include", line=section.line_of(item))


def _typographic_quotes(rules: Rules) -> Iterator[Problem]:
    """Find quotes that are a part of a value, where plain ones would enclose it."""
    read = rules.files.texts.values(), filter(None, rules.files.variables.values())
    has_some = any(map(QUOTES.search, chain.from_iterable(read)))
    for section in rules.sections if has_some else ():
        for entry in section.entries.values():
            for item in entry.items:
                if QUOTES.search(item.text):
                    message = "has typographic quotes, which are a part of the value; write plain ones, or none"
                    yield section.problem(message, entry.key, line=section.line_of(item))


_FINDERS: Sequence[Callable[[Rules], Iterable[Problem]]] = (
    *access.FINDERS, *destinations.FINDERS, unreachable_routes, suspicious_patterns,
    matchers_of_other_transport, _without_clients, _open_to_all, _beyond_peek_limit,
    ineffective_with_server_first, unreachable_silent_lines, any_before_speakers, _idle_backends,
    _servers_without_clients, _idle_servers, _empty_includes, _unread_files, _typographic_quotes,
    *finders("lint"),
)  # fmt: skip
