"""`txmux run`: the service, by a rules file or by options alone."""

import argparse
import pkgutil
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from txmux import files, matchers
from txmux.cli.journal import LEVELS, write_error
from txmux.detection.registry import installed_matchers, transports_of
from txmux.errors import ListenError, MuxError, OptionError
from txmux.interfaces import IProtocolMatcher, Transport
from txmux.rules.model import Rules
from txmux.rules.model.rules import OPTIONS
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.context import REFUSALS

_ADVICE = "nothing to run; write txmux run FILE, or txmux run --listen :443 --ssh 127.0.0.1:22"
_COMMON = {"--log-level", "--pidfile"}
_USAGE = 2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "%(prog)s [-h] [--log-level LEVEL] [--pidfile FILE] [FILE]\n"
        "       %(prog)s [...] --listen ENDPOINT [--PROTOCOL SERVER]... [--silent SERVER] [--default SERVER] [--user USER] "
        "[--workers NUMBER] [--admin ENDPOINT]... [--admin-token FILE] [--print]"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=f"the rules file; by default {files.RULES}")  # fmt: skip
    parser.add_argument("--log-level", metavar="LEVEL", choices=LEVELS, default="info", help="how much is logged: debug, info, warn, error or critical; by default info")  # fmt: skip
    parser.add_argument("--pidfile", metavar="FILE", help="a file for the process ID")
    options = parser.add_argument_group(
        "without a rules file",
        "A SERVER is HOST:PORT, [IPv6]:PORT, udp:HOST:PORT or unix:/PATH; or close, or reset.",
    )
    # fmt: off
    options.add_argument(
        "--listen",
        metavar="ENDPOINT",
        action="append",
        help="where to listen: ADDRESS:PORT, [IPv6]:PORT, or :PORT for every address; udp: in front is for UDP, as in udp:443; may be given several times",
    )
    options.add_argument("--default", metavar="SERVER", help="for clients that no protocol fits; by default close")
    options.add_argument("--silent", metavar="SERVER", help="for clients that wait for the server to speak; by default that of --ssh, or else close")
    options.add_argument("--user", metavar="USER", help="the user to switch to once it listens")
    options.add_argument("--workers", metavar="NUMBER", help="how many processes; auto is one per CPU core")
    options.add_argument("--admin", metavar="ENDPOINT", action="append", help="where the page and the commands reach it, beside its UNIX socket; off for no such socket; may be given several times")
    options.add_argument("--admin-token", metavar="FILE", help="the file with the token for an --admin over TCP, created if it does not exist")
    options.add_argument("--print", action="store_true", help="only write the rules file that these options mean")
    # fmt: on
    parser.set_defaults(routes=[])


def configure_more(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add an option for each protocol, which imports all matchers, unless only common options are given."""
    if words is not None and all(
        word.partition("=")[0] in _COMMON for word in words if word.startswith("-")
    ):
        return
    add_routes(
        parser.add_argument_group(
            "protocols", "They are tried in the order in which they are given."
        )
    )


def run(arguments: argparse.Namespace) -> int:
    wrong = _misuse(arguments)
    if wrong:
        print(f"txmux: {wrong}", file=sys.stderr)
        return _USAGE
    from txmux.cli.run.program import read_rules, run_service, status_of  # noqa: PLC0415 - for --help it is too much

    path, text = arguments.file or files.RULES, ""
    if arguments.listen:
        path, text = OPTIONS, text_of(arguments)
    rules = None
    try:
        rules = read_rules(path, text.encode(errors="surrogateescape") if text else None)
        if not arguments.print:
            return run_service(rules, level=arguments.log_level, pidfile=arguments.pidfile)
    except MuxError as error:
        if rules is None and text and isinstance(error, RulesError):
            # What is wrong with --ssh is wrong with `silent`, too.
            given = [one for one in error.problems if one.key != "silent" or arguments.silent]
            for problem in given or error.problems:
                print(f"txmux: {_option_problem(problem, arguments)}", file=sys.stderr)
            return _USAGE
        write_error(str(error) if rules is None or text else _why_not(rules, error))
        if not text and arguments.file is None and not Path(path).exists():
            print(f"txmux: {_ADVICE}", file=sys.stderr)
        return status_of(error)
    from txmux.cli.fmt import laid_out  # noqa: PLC0415 - as above

    print(laid_out(text), end="")
    return 0


def _why_not(rules: Rules, error: MuxError) -> str:
    """Return why the service cannot start: what `txmux check` would say, or that it runs already."""
    from txmux.cli.remote.command import running_service  # noqa: PLC0415 - a service that starts needs neither
    from txmux.rules.lint.privileges import obstacles  # noqa: PLC0415

    if isinstance(error, ListenError) and (running := running_service(rules.path)):
        again = f"txmux reload --rules {rules.path}"
        return f"txmux: these rules run already (process {running}); to apply changes: {again}"
    return "\n".join(map(str, obstacles(rules))) or str(error)


def unknown(words: Sequence[str]) -> str:
    """Return what to write in place of an option that has the name of a protocol without one."""
    from txmux.rules.advice.matching import MEANT, SERVER_FIRST  # noqa: PLC0415 - this is rare

    name = words[0].partition("=")[0].lstrip("-").casefold()
    if name in SERVER_FIRST:
        return "; its clients wait for the server to speak: write --silent"
    meant = MEANT.get(name, "")
    if meant in {one.name for one in plain_matchers()}:
        return f"; write --{meant}"
    return f"; that needs a rules file, with 'match = {meant}' in it" if meant else ""


def _misuse(arguments: argparse.Namespace) -> str:
    single = [
        (name, value) for name in NAMES if (value := getattr(arguments, name)) not in (None, False)
    ]
    given = [f"--{name.replace('_', '-')}" for name, _ in (*single, *arguments.routes)]
    for name, value in (*single, *arguments.routes):
        if not all(
            text.isprintable() for text in (value if isinstance(value, list) else [str(value)])
        ):
            return f"--{name.replace('_', '-')} has characters in it that cannot be printed"
    if arguments.file is not None and given:
        advice = "" if given[0] == "--print" else f"write it into {arguments.file}, or "
        return f"{given[0]} is for running without a rules file; {advice}leave the file out"
    if given and not arguments.listen:
        return f"{given[0]} is for running without a rules file, which takes --listen, too: --listen :443"
    has_server = arguments.routes or any(
        server is not None for server in (arguments.default, arguments.silent)
    )
    if arguments.listen and not has_server:
        return (
            "name at least one server: --ssh 127.0.0.1:22, for example, or --default 127.0.0.1:8080"
        )
    names = [name for name, _ in arguments.routes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        return f"--{twice} is given twice; for several servers of one protocol write a rules file (--print begins one)"
    return ""


def _option_problem(problem: Problem, arguments: argparse.Namespace) -> str:
    """Return a problem in terms of the option that it is about."""
    from txmux.cli.init.services import PORTS  # noqa: PLC0415 - only for this
    from txmux.rules.advice.words import did_you_mean  # noqa: PLC0415 - only for this

    if problem.section.startswith("route "):
        option = problem.section.removeprefix("route ")
    else:
        option = {"endpoint": "listen", "admin_token": "admin-token"}.get(problem.key, problem.key)
    message = _other_transport(option, arguments) or problem.message
    if message.startswith("there is no [backend "):
        given = {**vars(arguments), **dict(arguments.routes)}[option]
        near = did_you_mean(given, REFUSALS)
        what = "is not a server" if near else f"has no port; write {given}:PORT"
        message = f"{given!r} {what}{near}"
    if "' has no port; " in message:
        usual = next((port for port, kind in PORTS.items() if kind.matcher == option), "PORT")
        message = message.replace(", or the name of a [backend]", "").replace(":PORT", f":{usual}")
    if problem.key == "admin" and "'admin_token'" in message:
        message = (
            "over TCP it needs --admin-token FILE, too; the file is created if it does not exist"
        )
    return f"--{option}: {message}"


def _other_transport(option: str, arguments: argparse.Namespace) -> str:
    """Return what to add where no listener has the transport of an option's protocol."""
    if option not in dict(arguments.routes):
        return ""
    udp = any(endpoint.startswith("udp:") for endpoint in arguments.listen)
    tcp = not all(endpoint.startswith("udp:") for endpoint in arguments.listen)
    over = transports_of(installed_matchers()[option])
    if (udp and Transport.UDP in over) or (tcp and Transport.TCP in over):
        return ""
    advice = "UDP; add --listen udp:PORT" if tcp else "TCP; add --listen :PORT"
    return f"it works only over {advice}"


_SETTINGS = ("user", "workers", "admin", "admin_token")
_SINGLE = ("silent", "default", *_SETTINGS)
NAMES = ("listen", *_SINGLE, "print")
"""Options without a rules file, but for those of protocols."""

_NOT = {"any", "silent"}  # which is what --default and --silent are for


class _AddRoute(argparse.Action):
    """Keeps the order in which several options are given."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        _option: str | None = None,
    ) -> None:
        namespace.routes = [*namespace.routes, (self.dest, values)]


def add_routes(group: argparse._ArgumentGroup) -> None:
    """Add an option for each protocol whose matcher needs no option; ``routes`` of the arguments, empty at first, gets names and values."""
    for matcher in plain_matchers():
        group.add_argument(
            f"--{matcher.name}",
            metavar="SERVER",
            action=_AddRoute,
            default=argparse.SUPPRESS,
            help=matcher.summary.replace("%", "%%"),
        )


def plain_matchers() -> Iterator[IProtocolMatcher]:
    """Yield the matchers of this package that need no option."""
    own = {module.name for module in pkgutil.iter_modules(matchers.__path__)} - _NOT
    for name, matcher in installed_matchers().items():
        if name in own:
            try:
                matcher.predicate({})
            except OptionError:
                continue
            yield matcher


def text_of(arguments: argparse.Namespace) -> str:
    words = [shlex.join(("--listen", endpoint)) for endpoint in arguments.listen]
    words += [shlex.join((f"--{name}", server)) for name, server in arguments.routes]
    words += [
        shlex.join((f"--{name.replace('_', '-')}", value))
        for name in _SINGLE
        for value in _listed(getattr(arguments, name))
    ]
    # Some SSH clients wait for the server's greeting; none of another protocol here does.
    ssh = dict(arguments.routes).get("ssh", "")
    silent = arguments.silent or (ssh if len(ssh.split()) == 1 else None)
    lines = [f"# txmux run {' '.join(words)}"]
    settings = [*_keys([(name, getattr(arguments, name)) for name in _SETTINGS])]
    if settings:
        lines += ["", "[txmux]", *settings]
    by_udp = [endpoint for endpoint in arguments.listen if endpoint.startswith("udp:")]
    by_tcp = [endpoint for endpoint in arguments.listen if endpoint not in by_udp]
    more = [
        ("silent", silent if by_tcp else arguments.silent),
        ("default", _server(arguments.default, not by_tcp)),
    ]
    if by_tcp:
        lines += ["", "[listen public]", *_keys([("endpoint", by_tcp), *more])]
        more = []
    if by_udp:
        lines += ["", "[listen datagrams]", *_keys([("endpoint", by_udp), *more])]
    installed = installed_matchers()
    for name, server in arguments.routes:
        over = transports_of(installed[name])
        is_by_udp = bool(by_udp) and Transport.UDP in over and not (by_tcp and len(over) > 1)
        to = _server(server, is_by_udp) or ""
        under = "datagrams" if to.startswith("udp:") else "public" if ":" in to else "*"
        is_said = bool(by_tcp and by_udp)
        given = [("under", under if is_said else None), ("match", name), ("backend", to)]
        lines += ["", f"[route {name}]", *_keys(given)]
    return "".join(f"{line}\n" for line in lines)


def _server(text: str | None, is_by_udp: bool) -> str | None:  # noqa: FBT001 - the sentence reads so
    is_address = text is not None and ":" in text and not text.startswith(("udp:", "unix:"))
    return f"udp:{text}" if is_address and is_by_udp else text


def _listed(value: str | Sequence[str] | None) -> Sequence[str]:
    return [value] if isinstance(value, str) else value or []


def _keys(values: Sequence[tuple[str, str | Sequence[str] | None]]) -> Iterator[str]:
    given = [(key, listed) for key, value in values if (listed := _listed(value))]
    width = max((len(key) for key, _ in given), default=0)
    for key, listed in given:
        first, *others = map(_value, listed)
        yield f"{key:{width}} = {first}".rstrip()
        yield from (f"    {other}" for other in others)


def _value(text: str) -> str:
    # A single $ would begin a variable.
    return text.replace("$", "$$")
