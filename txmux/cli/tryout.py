"""Tries each server of all backends once, before the service starts."""

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from txmux.backends.connect.dial import Dialler
from txmux.backends.health.checking import CheckResult, CheckRun
from txmux.backends.health.probes import with_hint
from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import Upstreams
from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.rules.model import Backend, Rules


@frozen
class Tried:
    """The result of a try.

    Attributes:
        problem: Empty if it is healthy, as far as `tested` goes.
        address: That of its name.
        tested: What it has shown.
    """

    backend: Backend
    server: str
    problem: str = ""
    address: str = ""
    tested: str = ""


async def try_servers(rules: Rules, reactor: Any) -> list[Tried]:
    results: list[Tried] = []
    upstreams = Upstreams(reactor, reactor, Dialler.of(reactor), checking=False)
    upstreams.start()
    backends: list[Backend] = []
    for backend in rules.every_backend():
        if backend not in backends:  # short forms of one server are equal
            backends.append(backend)
    made: list[Upstream] = []
    for backend in backends:
        try:
            made.append(upstreams.upstream_of(backend))
        except MuxError as problem:
            results.append(Tried(backend, backend.servers[0].text, str(problem)))
    looked_up = upstreams.first_look_ups()
    if looked_up is not None:
        await looked_up
    unresolved = {key: f"no address: {why}" for key, (_, why) in upstreams.stale().items()}
    tries = [_try(upstreams, upstream, unresolved, reactor) for upstream in made]
    for several in await gatherResults([Deferred.fromCoroutine(attempt) for attempt in tries]):
        results += several
    await upstreams.stop()
    return results


async def _try(
    upstreams: Upstreams,
    upstream: Upstream,
    unresolved: Mapping[tuple[str, str], str],
    reactor: Any,
) -> list[Tried]:
    backend, pool = upstream.backend, upstream.pool
    members = [
        member
        for member in pool.members
        if not member.server.depends_on_client and member.state is not MemberState.DISABLED
    ]
    resolved = {member.server for member in pool.members}
    tried = [
        Tried(
            backend,
            server.text,
            unresolved.get((backend.name, server.text), "no address was found for it"),
        )
        for server in backend.servers
        if server not in resolved
    ]
    results = [_result(upstreams, upstream, member, reactor) for member in members]
    return tried + await gatherResults(results)


def _result(
    upstreams: Upstreams, upstream: Upstream, member: Member, reactor: Any
) -> Deferred[Tried]:
    result: Deferred[Tried] = Deferred()
    backend = upstream.backend
    server, address = member.server.text, member.target.text
    check_running: CheckRun

    def on_result(checked: CheckResult) -> None:
        problem = "" if checked.ok else with_hint(checked.why, backend)
        # Later, since the result may come while the check is being started.
        reactor.callLater(0, lambda: check_running.abort())  # noqa: PLW0108 - it is made later
        own_address = "" if address == server else address
        tested = "" if problem else _tested(backend, member)
        result.callback(Tried(backend, server, problem, own_address, tested))

    check_running = upstreams.try_member(upstream, member, on_result, backend.check)
    return result


def _tested(backend: Backend, member: Member) -> str:
    check = backend.check
    if check is not None and check.kind != "tcp":
        return f"passes check = {check.kind}"
    header = (
        ""
        if backend.proxy_protocol == "off" or (check and check.port)
        else " with the PROXY header"
    )
    what = "refuses no datagrams" if member.target.kind == "udp" else "accepts connections"
    return f"{what}{header}"
