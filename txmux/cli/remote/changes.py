"""The commands that ask a running service for a change: `CHANGES`, one line each."""

import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.errors import LateAnswerError, NoServiceError, ServiceRefusedError, UsageError
from txmux.cli.remote.trial import trial_code, try_rules, write_trial
from txmux.telemetry.formatting import plural

_PERIOD = 0.5  # seconds between two polls of the service while waiting
MOST_WEIGHT = 65535
_STOPS = "the service is shutting down; existing connections get 'drain_timeout' to finish"


def _write_changes(answer: Any, _: Namespace) -> None:
    output = Output()
    for result in answer if isinstance(answer, list) else [answer]:
        output.line(str(result["changes"]))


def _wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(_PERIOD)


# ban and unban


def _ban_arguments(parser: ArgumentParser) -> None:
    # fmt: off
    parser.add_argument("network", metavar="ADDRESS|NETWORK", help="who: 192.0.2.7, 192.0.2.0/24, 2001:db8::/32")
    parser.add_argument("duration", metavar="DURATION", nargs="?", help="for how long: 30m, 1h, 2d; without it, until 'txmux unban' lifts it")
    parser.add_argument("reason", metavar="REASON", nargs="*", default=[], help="why, for 'txmux bans'")
    # fmt: on


def _ban(ask: command.Ask, arguments: Namespace) -> Any:
    words = [] if arguments.duration is None else [arguments.duration, *arguments.reason]
    return ask("POST", "/api/bans", ban_body(arguments.network, words))


def ban_body(network: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the request for a ban; the words are its duration and then its reason, if given."""
    body: dict[str, Any] = {"network": network}
    if words:
        text, *reason = words
        body["seconds"] = _seconds(text, "; a reason comes after it")
        if reason:
            body["reason"] = " ".join(reason)
    return body


def _seconds(text: str, advice: str = "") -> int:
    from txmux.rules.problems import InvalidValueError  # noqa: PLC0415 - only bans with an end need it
    from txmux.rules.reading.values import positive_duration  # noqa: PLC0415 - as above

    try:
        return max(1, round(positive_duration(text)))
    except InvalidValueError as error:
        raise UsageError(f"DURATION {error}{advice}") from None


# close


def _close_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("words", metavar="ID", nargs="*", help="of a connection, as 'txmux connections' lists it; or FILTER=VALUE, written as in the API")  # fmt: skip
    command.add_filters(parser)


def _close(ask: command.Ask, arguments: Namespace) -> Any:
    ids = [word for word in arguments.words if "=" not in word]
    filters = command.read_filters([word for word in arguments.words if "=" in word], arguments)
    if filters and not ids:
        answer = ask("POST", "/api/connections/close", filters)
        if not answer["closed"]:
            command.note_unknown(ask, filters)
        return answer
    if len(ids) == 1 and not filters:
        return ask("POST", f"/api/connections/{quote(ids[0], safe='')}/close")
    raise UsageError("name one connection by its ID, or any number by filters")


# drain


def _drain_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="BACKEND[/SERVER]", help="a backend with all its servers, or one of them: web/10.0.0.5:8443")  # fmt: skip
    states = parser.add_mutually_exclusive_group()
    # fmt: off
    states.add_argument("--maintenance", dest="state", action="store_const", const="maintenance", default="drain", help="also stop checking them")
    states.add_argument("--ready", dest="state", action="store_const", const="ready", help="undo it: send clients there again")
    parser.add_argument("--close", action="store_true", help="also end their connections")
    parser.add_argument("--wait", action="store_true", help="wait until the servers have no connections")
    # fmt: on


def _drain(ask: command.Ask, arguments: Namespace) -> Any:
    if arguments.wait and arguments.state == "ready":
        raise UsageError("--wait is for servers that get no new connections, not for --ready")
    body = {"state": arguments.state, "close_connections": arguments.close}

    def drain(backend: str, server: str) -> Any:
        done = ask("POST", path_of(backend, server), body)
        if arguments.wait:
            _wait_until_free(lambda: _active(ask, backend, server), backend)
        return done

    return _by_name(arguments.name, drain)


def path_of(backend: str, server: str) -> str:
    path = f"/api/backends/{quote(backend, safe='')}"
    return f"{path}/servers/{quote(server, safe='')}" if server else path


def _by_name(name: str, change: Callable[[str, str], Any]) -> Any:
    """Change a BACKEND, or a BACKEND/SERVER.

    Both may have slashes: a backend that the rules write as its address is called ``unix:/run/web.sock``. So the name is read in each
    possible way until the service knows it, the likeliest first.
    """
    cuts = [at for at, character in enumerate(name) if character == "/"]
    is_address = ":" in name.partition("/")[0]
    refusals = []
    for cut in [len(name), *cuts] if is_address else [*cuts, len(name)]:
        try:
            return change(name[:cut], name[cut + 1 :])
        except ServiceRefusedError as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            refusals.append(refused)
    raise refusals[0]


def _wait_until_free(active: Callable[[], int], backend: str) -> None:
    if left := active():
        print(
            f"waiting for {plural(left, 'connection')} to end; see them: txmux connections --backend {backend}",
            file=sys.stderr,
        )
        _wait_until(lambda: not active())


def _active(ask: command.Ask, backend: str, server: str) -> int:
    """Count the connections of a server, or of all that a backend has; what a reload has removed has none."""
    try:
        rows = command.backend_named(ask, backend)["servers"]
    except ServiceRefusedError as refused:
        if refused.status != HTTPStatus.NOT_FOUND:
            raise
        return 0
    return sum(row["active"] for row in rows if server in {"", row["server"]})


# weight


def _weight_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="BACKEND/SERVER", help="a server of a backend: web/10.0.0.5:8443")  # fmt: skip
    parser.add_argument("weight", metavar="NUMBER", help="1 to 65535; 0 or default is that of the rules again")  # fmt: skip


def read_weight(text: str) -> int | None:
    """Read a weight of the command; ``None`` is that of the rules."""
    number = "0" if text == "default" else text
    if not re.fullmatch("[0-9]{1,5}", number) or int(number) > MOST_WEIGHT:
        message = f"{text!r} is no weight; write a number up to {MOST_WEIGHT}, or default"
        raise UsageError(message)
    return int(number) or None


def _weight(ask: command.Ask, arguments: Namespace) -> Any:
    weight = read_weight(arguments.weight)

    def weigh(backend: str, server: str) -> Any:
        path = path_of(backend, server or _only_server(ask, backend))
        return ask("POST", path, {"weight": weight})

    return _by_name(arguments.name, weigh)


def _only_server(ask: command.Ask, backend: str) -> str:
    rows = command.backend_named(ask, backend)["servers"]
    servers = [str(row["server"]) for row in rows if row["state"] != "disabled"]
    if len(servers) > 1:
        named = ", ".join(f"{backend}/{server}" for server in servers)
        raise UsageError(f"backend {backend} has several servers; name one of {named}")
    return servers[0] if servers else str(rows[0]["server"])


# pause and resume


def _accepts(*, accepting: bool) -> command.RemoteCommand:
    return command.RemoteCommand(
        lambda ask, given: ask(
            "POST", f"/api/listeners/{quote(given.listener, safe='')}", {"accepting": accepting}
        ),
        _write_changes,
        arguments=lambda parser: parser.add_argument(
            "listener", metavar="LISTENER", help="by its name in the rules"
        ),
    )


# hold and release


def _hold_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("backend", metavar="BACKEND", help="whose new clients wait")
    parser.add_argument("--for", dest="duration", metavar="DURATION", help="for how long at most: 30s, 5m; without it, until 'txmux release'")  # fmt: skip
    parser.add_argument("--wait", action="store_true", help="wait until its servers have no connections")  # fmt: skip


def _hold(ask: command.Ask, arguments: Namespace) -> Any:
    name = arguments.backend
    seconds = None if arguments.duration is None else _seconds(arguments.duration)
    body = {} if seconds is None else {"seconds": seconds}
    answer = ask("POST", f"/api/backends/{quote(name, safe='')}/hold", body)
    if arguments.wait:
        _wait_until_free(lambda: _active_of_held(ask, name), name)
    return answer


def _active_of_held(ask: command.Ask, name: str) -> int:
    """Count the connections of a backend; an error if it is no longer held, as new ones come then."""
    backend = command.backend_named(ask, name)
    if backend["hold"] is None:
        why = f"backend {name}: its hold ended before its connections did"
        raise ServiceRefusedError([why], HTTPStatus.CONFLICT, {"error": why})
    return sum(server["active"] for server in backend["servers"])


# reload, stop and upgrade


def _reload_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--try", dest="is_trial", action="store_true", help="change nothing: only report which of the last clients would go elsewhere by the rules as they are now")  # fmt: skip


def _reload(ask: command.Ask, arguments: Namespace) -> Any:
    return try_rules(ask) if arguments.is_trial else ask("POST", "/api/reload")


def _write_reload(answer: Mapping[str, Any], arguments: Namespace) -> None:
    if arguments.is_trial:
        write_trial(answer)
        return
    changes = str(answer.get("changes"))
    # Without a file there is nothing to read.
    before = "" if changes.startswith("nothing to reload") else "rules reloaded: "
    Output().line(before + changes)


def _stop(ask: command.Ask, arguments: Namespace) -> Any:
    pid = ask("GET", "/api/status").get("pid") if arguments.wait else None
    answer = ask("POST", "/api/stop")
    if arguments.wait:
        _wait_until(lambda: _has_ended(ask, pid))
    return answer


def _has_ended(ask: command.Ask, pid: int | None) -> bool:
    try:
        return bool(ask("GET", "/api/status").get("pid") != pid)  # one that was started after it
    except LateAnswerError:
        return False
    except NoServiceError:
        return True


def _upgrade_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="only report which connections would stay in the old process, until when, and why the upgrade would be refused")  # fmt: skip


def _upgrade(ask: command.Ask, arguments: Namespace) -> Any:
    return ask("POST", "/api/upgrade/check" if arguments.check else "/api/upgrade")


def _write_upgrade(answer: Mapping[str, Any], arguments: Namespace) -> None:
    output = Output()
    if not arguments.check:
        output.line(f"upgraded: {answer.get('changes')}")
        return
    for why in answer["refusals"]:
        output.line(f"would be refused: {why}")
    output.line(str(answer["changes"]))


def _upgrade_code(answer: Mapping[str, Any], arguments: Namespace) -> int:
    # An older service does not report whether it is complete.
    is_fine = answer["ready"] if arguments.check else answer.get("complete", True)
    return 0 if is_fine else command.REFUSED


# fmt: off
CHANGES = {
    "ban": command.RemoteCommand(_ban, _write_changes, arguments=_ban_arguments),
    "close": command.RemoteCommand(_close, lambda answer, _: Output().line(f"ended: {plural(answer['closed'], 'connection')}"), 60, _close_arguments),
    "drain": command.RemoteCommand(_drain, _write_changes, 60, _drain_arguments),
    "hold": command.RemoteCommand(_hold, _write_changes, 60, _hold_arguments),
    "pause": _accepts(accepting=False),
    "release": command.RemoteCommand(
        lambda ask, given: ask("POST", f"/api/backends/{quote(given.backend, safe='')}/release"), _write_changes, 60,
        lambda parser: parser.add_argument("backend", metavar="BACKEND", help="whose clients go on")),
    "reload": command.RemoteCommand(
        _reload, _write_reload, 120, _reload_arguments, lambda answer, given: trial_code(answer) if given.is_trial else 0),
    "resume": _accepts(accepting=True),
    "stop": command.RemoteCommand(
        _stop, lambda _, given: Output().line("the service has ended" if given.wait else _STOPS),
        arguments=lambda parser: parser.add_argument("--wait", action="store_true", help="wait until it has ended")),
    "unban": command.RemoteCommand(
        lambda ask, given: ask("POST", "/api/bans/remove", {"network": given.network}), _write_changes,
        arguments=lambda parser: parser.add_argument("network", metavar="ADDRESS|NETWORK", help="as 'txmux bans' lists it")),
    # The new process has a minute to be ready; then the connections are handed over.
    "upgrade": command.RemoteCommand(_upgrade, _write_upgrade, 180, _upgrade_arguments, _upgrade_code),
    "weight": command.RemoteCommand(_weight, _write_changes, arguments=_weight_arguments),
}
# fmt: on
