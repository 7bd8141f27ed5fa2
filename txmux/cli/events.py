"""`txmux events`: how the last connections ended, or what happens in a running service, as it happens."""

import argparse
import json
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.ask import ask, follow
from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError, UsageError, of_txmux
from txmux.errors import printable
from txmux.telemetry.formatting import milliseconds, si_number

_Event = Mapping[str, Any]

_AGAIN = 0.5  # seconds until the process that has taken over is asked
_TIMEOUT = 15.0  # seconds; a service sends something every five


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--route", metavar="NAME", help="only connections of this route; - is those that no route took")  # fmt: skip
    parser.add_argument("--follow", action="store_true", help="report what happens from now on, until Control-C")  # fmt: skip
    command.configure(parser, seconds=_TIMEOUT)


def run(arguments: argparse.Namespace) -> int:
    output, is_empty = Output(), True
    try:
        with of_txmux():
            for event in _followed(arguments) if arguments.follow else _recent(arguments):
                if arguments.route is None or _concerns(event, arguments.route):
                    is_empty = False
                    if arguments.json:
                        print(json.dumps(event))
                    else:
                        output.line(_line(event))
                    sys.stdout.flush()
    except ServiceRefusedError as error:
        print(printable(str(error)), file=sys.stderr)
        return command.REFUSED
    except (NoServiceError, UsageError) as error:
        return command.failed(error)
    if is_empty and not (arguments.follow or arguments.json):
        of_route = "" if arguments.route is None else f" of route {arguments.route}"
        output.line(f"no recent connection{of_route} ended otherwise than 'done'")
    return 0


def _line(event: _Event) -> str:
    at = datetime.fromtimestamp(event["at"]).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S}  {event['event']:7}  {_LINES[event['event']](event)}"


def _recent(arguments: argparse.Namespace) -> Iterator[_Event]:
    rows = ask(command.endpoint_of(arguments), "GET", "/api/recent", seconds=arguments.timeout)
    for row in reversed(rows):
        yield {"event": "end", "at": row["ended"], **row}


def _followed(arguments: argparse.Namespace) -> Iterator[_Event]:
    """Yield events until the service stops; the process that an upgrade has started is followed, too."""
    stop = None
    while stop is None:
        for event in follow(
            command.endpoint_of(arguments), "/api/events", seconds=arguments.timeout
        ):
            if event is None:
                if _is_unread():
                    raise BrokenPipeError
            elif event["event"] == "stop":
                stop = event
            elif event["event"] in _LINES:
                yield event
        time.sleep(_AGAIN)
        if stop is not None and _is_served(arguments):
            stop = None
    yield stop


def _is_served(arguments: argparse.Namespace) -> bool:
    """Return whether another process has taken over from one that stops."""
    try:
        status = ask(
            command.endpoint_of(arguments), "GET", "/api/status", seconds=arguments.timeout
        )
    except NoServiceError:
        return False
    return not status["draining"]


def _is_unread() -> bool:
    """Return whether the reader of the output has left."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))


def _concerns(event: _Event, route: str) -> bool:
    if "route" in event:
        return bool((event["route"] or "-") == route)
    return event["event"] in {"skipped", "stop"}


def _connection(event: _Event, more: str) -> str:
    return f"{event['id']} {event['client']} on {event['listener']}, route {event['route'] or '-'}{more}"


def _decided(event: _Event) -> str:
    late = "" if event["detect_ms"] is None else f" after {milliseconds(event['detect_ms'])}"
    return _connection(event, late)


def _ended(event: _Event) -> str:
    server = f" to {event['server']}" if event["server"] else ""
    counts = ", ".join(
        f"{si_number(event[name])} {way}"
        for name, way in (("bytes_in", "in"), ("bytes_out", "out"))
    )
    return _connection(event, f"{server}: {event['reason']}, {counts}")


def _server(event: _Event) -> str:
    address = "" if event["address"] == event["server"] else f" ({event['address']})"
    why = f": {event['why']}" if event["why"] else ""
    return (
        f"{event['backend']} {event['server']}{address}: {event['before']} → {event['state']}{why}"
    )


def _reload(event: _Event) -> str:
    return str(event["changes"]) if event["ok"] else f"refused: {'; '.join(event['errors'])}"


_LINES: Mapping[str, Callable[[_Event], str]] = {
    "decide": _decided,
    "end": _ended,
    "server": _server,
    "reload": _reload,
    "skipped": lambda event: f"{event['count']} events of connections, above 100 in a second",
    "stop": lambda _: "the service is shutting down",
}
