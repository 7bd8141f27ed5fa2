"""`txmux drain`: a running service leads no new clients to a backend's servers, or to one of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.errors import NobodyError, RefusedError, UsageError
from txmux.cli.remote.waiting import wait_until

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "name",
        metavar="BACKEND[/SERVER]",
        help="a backend with all its servers, or one of them: web/10.0.0.5:8443",
    )
    states = parser.add_mutually_exclusive_group()
    states.add_argument(
        "--maintenance",
        dest="state",
        action="store_const",
        const="maintenance",
        default="drain",
        help="treat them as down: they are not checked either",
    )
    states.add_argument(
        "--ready",
        dest="state",
        action="store_const",
        const="ready",
        help="undo it: send clients there again",
    )
    parser.add_argument("--close", action="store_true", help="also end their connections")
    parser.add_argument(
        "--wait", action="store_true", help="wait until the servers have no connection any more"
    )
    command.configure(parser, seconds=60)


def run(arguments: argparse.Namespace) -> int:
    """Change their state, and tell what has changed."""

    def question(ask: command.Ask) -> Any:
        if arguments.wait and arguments.state == "ready":
            raise UsageError("--wait is for servers that get no new connections, not for --ready")
        found = _backend(ask("GET", "/api/backends"), arguments.name)
        backend = found["name"]
        server = arguments.name[len(backend) + 1 :]
        wanted = {"state": arguments.state, "close_connections": arguments.close}
        path = f"/api/backends/{quote(backend, safe='')}/servers/"
        servers = [server] if server else _servers(found)
        done = _done(ask, [path + quote(one, safe="") for one in servers], wanted)
        if arguments.wait:
            wait_until(lambda: not _active(ask("GET", "/api/backends"), backend, servers))
        return done[0] if server else done

    return command.run(arguments, question, _write)


def _done(
    ask: command.Ask, paths: Sequence[str], wanted: Mapping[str, object]
) -> list[Mapping[str, Any]]:
    """Change one server after another; if one fails, say which were changed before."""
    done: list[Mapping[str, Any]] = []
    for path in paths:
        try:
            done.append(ask("POST", path, wanted))
        except RefusedError as error:  # noqa: PERF203 - what was done before is told
            document = error.document
            if done and isinstance(document, dict):
                document = {**document, "done": done}
            raise RefusedError([str(error), *_before(done)], error.status, document) from None
        except NobodyError as error:
            raise NobodyError("; ".join([str(error), *_before(done)])) from None
    return done


def _before(done: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"done before that: {one['changes']}" for one in done]


def _active(backends: Sequence[Mapping[str, Any]], name: str, servers: Sequence[str]) -> int:
    """Count the connections of servers; those that a reload has removed have none."""
    return sum(
        one["active"]
        for backend in backends
        if backend["name"] == name
        for one in backend["servers"]
        if one["server"] in servers
    )


def _backend(backends: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Find the backend that is named, or whose server is.

    Both may have slashes: one that the rules write as its address is called ``unix:/run/web.sock``.

    Raises:
        RefusedError: There is none.
    """
    named = [one for one in backends if f"{name}/".startswith(f"{one['name']}/")]
    if not named:
        known = ", ".join(str(one["name"]) for one in backends)
        why = f"there is no backend {name!r} (there are {known or 'none'})"
        raise RefusedError([why], HTTPStatus.NOT_FOUND, {"error": why})
    return max(named, key=lambda one: len(one["name"]))


def _servers(backend: Mapping[str, Any]) -> list[str]:
    """Return the servers of a backend but for those that the rules call ``down``, of which a service refuses to hear."""
    return [one["server"] for one in backend["servers"] if one["state"] != "disabled"]


def _write(answer: Any) -> None:
    output = Output()
    for one in answer if isinstance(answer, list) else [answer]:
        output.line(str(one["changes"]))
