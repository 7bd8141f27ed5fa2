"""The changes that an operator makes, which reloads and upgrades keep: to servers, to backends whose clients wait, and to listeners."""

import math
import time
from collections.abc import Sequence

from txmux.backends.pool.server_health import AS_RULED
from txmux.client.overrides import ServerState
from txmux.control.attention import STATES
from txmux.control.broadcast import ENDING, concurrently
from txmux.control.control import Control
from txmux.control.report import Report
from txmux.control.rules_index import known_backend, known_listener, known_server
from txmux.interfaces import Transport
from txmux.net.channel import messages
from txmux.rules.reading.endpoints import MOST_WEIGHT
from txmux.telemetry.formatting import duration, plural


async def set_server(
    control: Control,
    backend: str,
    server: str,
    *,
    state: ServerState | None = None,
    weight: int | None = None,
    close_connections: bool = False,
) -> Report:
    """Override the state or weight of a server, until the next call; reloads and upgrades keep it.

    ``drain`` routes no new connections to it, but checks it; ``maintenance`` does not check it either. Weight 0 restores that of the rules.
    """
    configured = known_server(control.index, backend, server)
    if configured.down and state is not None:
        return Report.refused(
            f"backend {backend}: {server} is marked down in the rules; remove 'down' and reload"
        )
    if weight is not None and not 0 <= weight <= MOST_WEIGHT:
        return Report.refused(
            f"weight: must be from 1 to {MOST_WEIGHT}, or 0 for that of the rules, not {weight}"
        )
    overrides = control.state.overrides
    before = overrides.servers.get((backend, server), AS_RULED).state
    late = await control.override(
        overrides.with_server(backend, server, time.time(), state, weight)
    )
    caveat = "" if state is None else await _caveat(control, backend, [server], state)
    changes = []
    if state:
        is_now = f"was {STATES[state]} already" if state == before else f"is {STATES[state]}"
        changes.append(is_now + (caveat if state == "ready" else ""))
    if weight is not None:
        changes.append(f"has weight {weight or configured.weight}")
    if close_connections:
        changes.append(await _close_servers(control, backend, [server], late))
    changed = (", ".join(changes) or "is as before") + ("" if state == "ready" else caveat)
    name = backend if server == backend else f"{backend}: {server}"
    return _report(f"backend {name} {changed}", late)


async def set_backend(
    control: Control, backend: str, state: ServerState, *, close_connections: bool = False
) -> Report:
    """Override the state of all servers of a backend at once, as `set_server` does for one; those marked down in the rules stay so.

    Of concurrent calls, the last one holds for all of them.
    """
    every = known_backend(control.index, backend).servers
    servers = [server.text for server in every if not server.down]
    if not servers:
        return Report.refused(
            f"backend {backend}: all servers are marked down in the rules; remove 'down' and reload"
        )
    # No other change can come before this one is in force: nothing is awaited until then.
    before, overrides, now = control.state.overrides, control.state.overrides, time.time()
    for server in servers:
        overrides = overrides.with_server(backend, server, now, state, None)
    late = await control.override(overrides)
    one = len(servers) == 1
    is_now = "is" if one else "are"
    if overrides == before:
        is_now = "was already" if one else "were already"
    changed = f"{plural(len(servers), 'server')} {is_now} {STATES[state]}"
    changed += await _caveat(control, backend, servers, state)
    if len(servers) < len(every):
        down = plural(len(every) - len(servers), "server")
        changed += f"; {down} marked down in the rules"
    if close_connections:
        changed += f"; {await _close_servers(control, backend, servers, late)}"
    return _report(f"backend {backend}: {changed}", late)


async def _close_servers(
    control: Control, backend: str, servers: Sequence[str], late: list[str]
) -> str:
    asked = (
        control.change_workers(
            messages.CLOSE_SERVER, seconds=ENDING, backend=backend, server=server
        )
        for server in servers
    )
    every = await concurrently(*asked)
    late += dict.fromkeys(line for answers in every for line in answers.missing)
    count = sum(count for answers in every for _, count in answers)
    return f"{plural(count, 'connection')} ended"


async def _caveat(
    control: Control, backend: str, servers: Sequence[str], state: ServerState
) -> str:
    """Return why ready servers get no clients yet, or that the backend has no other server for new ones."""
    states = {
        row["server"]: row
        for document in await control.backends(of={backend})
        for row in document["servers"]
    }
    if state != "ready":
        is_last = all(
            row["state"] not in {"up", "probing", "failing", "silent"} for row in states.values()
        )
        return f"; no server of {backend} gets new clients now" if is_last else ""
    rows = [states[server] for server in servers if server in states]
    others = [row for row in rows if row["state"] != "up"]
    if not others:
        return ""
    row = others[0]
    which = "" if len(servers) == 1 else f"{len(others)} not up: {row['server']} "
    why = f" ({row['why']})" if row["why"] else ""
    return f", but {which}{row['state']}{why}"


async def hold(control: Control, backend: str, seconds: float = math.inf) -> Report:
    """Hold new clients of a backend, even if servers are up, until `release` or for some seconds; reloads and upgrades keep it."""
    known_backend(control.index, backend)
    now = time.monotonic()
    late = await control.override(control.state.overrides.with_hold(backend, now, now + seconds))
    end = "until it is released" if seconds == math.inf else f"for {duration(seconds)}"
    return _report(f"backend {backend}: new clients wait, {end}", late)


async def release(control: Control, backend: str) -> Report:
    """Release the clients that `hold` keeps waiting."""
    names = control.index.backends.keys()
    overrides, now = control.state.overrides, time.monotonic()
    if backend not in names | overrides.held.keys():
        known_backend(control.index, backend)
    was_held = overrides.held.get(backend, 0.0) > now
    late = await control.override(overrides.with_hold(backend, now, 0.0))
    how = "its clients go on" if was_held else "was not held"
    return _report(f"backend {backend}: {how}", late)


async def set_listener(control: Control, name: str, *, accepting: bool) -> Report:
    """Accept the clients of a listener, or leave them in the queue of its socket; reloads and upgrades keep it."""
    transport = known_listener(control.index, name)
    late = await control.override(control.state.overrides.with_listener(name, accepting=accepting))
    # Over UDP all clients share one queue, so new ones cannot be left there.
    is_udp = transport is Transport.UDP
    left = "begins no flows" if is_udp else "leaves clients in the queue"
    how = "accepts clients" if accepting else left
    return _report(f"listener {name}: {how}", late)


def _report(changes: str, late: Sequence[str]) -> Report:
    return Report(ok=True, changes="; ".join([changes, *(f"not yet: {reason}" for reason in late)]))
