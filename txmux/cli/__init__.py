"""Commands of the `txmux` program.

A command is a module of its name with ``configure(parser)``, which adds its arguments, and ``run(arguments)``, which
returns the program's exit code; one may have ``configure_more(parser, words)``, too. Those that only ask a running service are in the tables of
`txmux.cli.remote.changes` and `txmux.cli.remote.reports`. Only the module of the command that is run is imported: some of them need much.
Features have further commands, and other packages bring theirs by `txmux.cli`.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import re
import shlex
import stat
import sys
from bisect import insort
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txmux import __version__
from txmux.cli.journal import write_error
from txmux.errors import MuxError, how_to_reinstall
from txmux.net.tls.deferred import import_reactor_without_tls
from txmux.rules import optional

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMANDS = {
    "ban": "Ban an address or a network for a while.",
    "bans": "List the bans of a running service.",
    "certificates": "List the certificates of a running service, or renew one that comes by ACME.",
    "check": "Report all errors and warnings in rules files, one per line; nothing is started.",
    "clients": "List where the clients of a running service come from, the busiest first.",
    "close": "End connections of a running service, by ID or by filters.",
    "completion": "Write the script that completes these commands in a shell.",
    "connections": "List the connections of a running service.",
    "drain": "Stop sending new clients to a backend's servers, or to one of them.",
    "events": "Show how the last connections ended, or what happens from now on.",
    "explain": "Show what each route says about a client's first bytes, at which byte, and which route wins.",
    "fmt": "Format rules files; their comments and meaning stay.",
    "hold": "Let new clients of a backend wait, while you restart its server.",
    "init": "Write a first rules file, from what listens on this machine.",
    "matchers": "List the installed matchers; with a name, show how to use that one.",
    "pause": "Leave new clients of a listener in its queue.",
    "provider": "Write rules from what another system knows, such as the labels of containers.",
    "reload": "Reload the rules of a running service; nothing changes if they have errors.",
    "release": "Let the clients that wait by 'txmux hold' go on.",
    "resume": "Let a listener accept clients again.",
    "run": "Run the service, from a rules file or from options.",
    "servers": "List the servers of a running service, what is down or drained first.",
    "status": "Show the state of a running service.",
    "stop": "Stop a running service; its connections may finish.",
    "unban": "Lift a ban of a running service.",
    "upgrade": "Upgrade a running service to the installed version, in a new process.",
    "weight": "Change the weight of a server.",
}
"""The commands of this package, and what each does."""

_IN_WHEEL = {"convert": "txmux_convert"}
"""Commands of packages that come with this one, of which an installation may have been stripped."""

_CHANGES = "ban close drain hold pause release reload resume stop unban upgrade weight"
_REPORTS = "bans certificates clients connections servers status"
COMMAND_TABLES = {
    **dict.fromkeys(_CHANGES.split(), "CHANGES"),
    **dict.fromkeys(_REPORTS.split(), "REPORTS"),
}
"""Commands that are in a table of `txmux.cli.remote`, in the module of its name, and not in a module of their own."""

COLLECTING = gc.get_threshold()
_PIPE_CLOSED = 128 + 13  # SIGPIPE
_INTERRUPTED = 128 + 2  # SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `txmux` program with these arguments, by default those of the process.

    Returns:
        The exit code; 78 (``EX_CONFIG``) if a rules file has errors, except for ``txmux check``; 1 if the output cannot be written; as in shells, 141 if the reader of the
        output has closed it, and 130 after Control-C. Wrong arguments raise `SystemExit` with code 2, as `argparse` does.
    """
    open_closed_streams()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else [*argv])
        except MuxError as error:
            return _failed(error)
        finally:
            gc.set_threshold(*COLLECTING)
            sys.stdout.flush()
    except OSError as error:
        is_gone = _is_output_gone(error)
        if not (is_gone or _is_of_output(error)):
            raise
        # What is left must not be written again at the end of the process.
        _, nothing = os.pipe()  # no file may be opened in the sandbox, in which `explain` is
        os.dup2(nothing, sys.stdout.fileno())
        if is_gone:
            return _PIPE_CLOSED
        print(f"txmux: cannot write to standard output: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _is_output_gone(error: OSError) -> bool:
    """Return whether nobody reads it: the reader, `head` for one, has ended, or the terminal was closed; its descriptor is no terminal then."""
    if isinstance(error, BrokenPipeError):
        return True
    output = sys.stdout.fileno()
    is_device = stat.S_ISCHR(os.fstat(output).st_mode)
    return error.errno == errno.EIO and is_device and not os.isatty(output)


def _is_of_output(error: OSError) -> bool:
    """Return whether the standard output could not be written, as on a full disk: then it still cannot."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as again:
        return again.errno == error.errno
    return False


def open_closed_streams() -> None:
    """Open closed standard streams on /dev/null: else a socket of the service gets the number of one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - its name does not take it
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, name, stream)


def make_parser(
    commands: Collection[str] | None = None, words: Sequence[str] | None = None
) -> argparse.ArgumentParser:
    """Return the parser of the program's arguments.

    Only these commands have all their arguments, by default all commands; of the others the names are known. A command whose options take
    long to collect may skip those that do not matter for `words`.

    Raises:
        MuxError: One of these commands is another package's, and cannot be loaded.
    """
    parser = argparse.ArgumentParser(
        prog="txmux",
        description="Many protocols on one TCP or UDP port: the service, and its tools.",
    )
    parser.add_argument("--version", action="version", version=f"txmux {__version__}")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    # To look for them takes as long as a short command.
    asked = commands or ()
    of_features = optional.commands(asked)
    own = {**COMMANDS, **{name: summary for name, (_, summary) in of_features.items()}}
    others = {} if asked and {*asked} <= own.keys() else commands_of_others()
    for name in names_of_commands({**of_features, **others}):
        command, summary = None, own.get(name, "")
        if name in own:
            command = _command(name) if commands is None or name in asked else None
        elif name in asked or not others.keys() & asked:
            try:
                command = load(others[name])
                summary = command.SUMMARY
            except MuxError as error:
                if name in asked:
                    raise
                summary = str(error)
        # Options of `run` are names of matchers: `--mysql` is not `--mysqlx`.
        command_parser = parsers.add_parser(
            name, help=summary.replace("%", "%%"), description=summary, allow_abbrev=name != "run"
        )
        if command is not None:
            command.configure(command_parser)
            if hasattr(command, "configure_more"):
                command.configure_more(command_parser, words)
            command_parser.set_defaults(
                run=command.run, unknown=getattr(command, "unknown", None), parser=command_parser
            )
    return parser


def names_of_commands(others: Collection[str] | None = None) -> list[str]:
    """Return the names of all commands, those of features and of other packages included."""
    names = [*COMMANDS]
    for name in {**optional.commands(), **commands_of_others()} if others is None else others:
        if name not in COMMANDS:
            insort(names, name)
    return names


def _command(name: str) -> Any:
    table = COMMAND_TABLES.get(name)
    if table is None:
        own = f"txmux.cli.{name}"
        return import_module(own if name in COMMANDS else optional.commands([name])[name][0])
    return getattr(import_module(f"txmux.cli.remote.{table.lower()}"), table)[name]


def _run(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    elif words[:1] in (["version"], ["-V"], ["-v"]) or words in (
        ["run", "-V"],
        ["run", "--version"],
    ):
        words = ["--version"]
    if words[:1] == ["run"]:
        # Full collections while all is imported would take a tenth of the time, and find next to nothing.
        gc.set_threshold(*COLLECTING[:2], 1 << 30)
        import_reactor_without_tls()
    parser = make_parser(words[:1], words)  # options before a command end the program
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2, "\ntxmux: name a command\n")
    if not (words[0] in COMMANDS or _is_own(words[0]) or words[0] in names_of_commands()):
        parser.error(_unknown(words))
    arguments, others = parser.parse_known_args(words)
    if others:
        near = _near(others[0].partition("=")[0], arguments.parser._option_string_actions)
        hint = (arguments.unknown and arguments.unknown(others)) or near
        arguments.parser.error(f"unrecognized arguments: {shlex.join(others)}{hint}")
    code: int = arguments.run(arguments)
    return code


def _is_own(word: str) -> bool:
    return word == "-h" or (
        len(word) > 2 and any(own.startswith(word) for own in ("--help", "--version"))
    )


def _near(word: str, known: Collection[str]) -> str:
    from txmux.rules.advice.words import did_you_mean  # noqa: PLC0415 - this is rare

    if word == "--admin-token" and "--token-file" in known:  # which is not near
        return "; did you mean '--token-file'?"
    return did_you_mean(word, known)


def _unknown(words: Sequence[str]) -> str:
    word = words[0]
    if word in _IN_WHEEL:
        raise missing(word, _IN_WHEEL[word], "txmux")
    if why := optional.missing(f"txmux {word}"):
        raise MuxError(f"the command {word!r}: {why}")
    if word.startswith("-"):
        near = _near(word, ("--help", "--version"))
        return f"{word!r} is not an option{near or ' here; the command comes first, as in txmux run FILE'}"
    if Path(word).suffix or os.sep in word or Path(word).exists():
        return f"{word!r} is not a command; to run the service with that file: txmux run {shlex.quote(word)}"
    near = _near(word, names_of_commands()) or "; txmux --help lists those there are"
    return f"there is no command {word!r}{near}"


def _failed(error: MuxError) -> int:
    from txmux.rules.problems import RulesError  # noqa: PLC0415 - not every command needs it

    if isinstance(error, RulesError):
        write_error(str(error))
        return os.EX_CONFIG
    write_error(f"txmux: {error}")
    return 1


_NAME = re.compile(r"[a-z][a-z0-9-]*")


def commands_of_others() -> dict[str, list[EntryPoint]]:
    """Return what brings each command: this distribution, or else others. A name that shells would not complete is none."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - most commands are found without it

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="txmux.commands"):
        if _NAME.fullmatch(point.name):
            found.setdefault(point.name, []).append(point)
    own = {name: [one for one in points if _is_own_point(one)] for name, points in found.items()}
    return {name: own[name] or points for name, points in found.items()}


def load(points: list[EntryPoint]) -> Any:
    """Import a command, and try whether it can be used.

    Raises:
        MuxError: It cannot, or several packages bring it. The message names the package.
    """
    name = f"the command {points[0].name!r}"
    if len(points) > 1:
        raise MuxError(f"{name} comes from {' and '.join(map(_package, points))}; uninstall one")
    (point,) = points
    try:
        command = point.load()
        trial = argparse.ArgumentParser(description=command.SUMMARY)
        command.configure(trial)
        trial.format_help()
        command.run  # noqa: B018 - it is there
    except (Exception, SystemExit) as error:
        module = point.module.partition(".")[0]
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacking and lacking.partition(".")[0] == module:
            raise missing(point.name, module, _package(point)) from None
        what = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{name} of {_package(point)} cannot be loaded: {what}; update that package, or uninstall it"
        raise MuxError(message) from error
    return command


def missing(name: str, module: str, package: str) -> MuxError:
    """Return the error of a command whose code has been left out of an installation."""
    return MuxError(
        f"the command {name!r} needs {module}, a part of {package} that is not installed; "
        f"install that again: {how_to_reinstall(package.partition(' ')[0])}"
    )


def _is_own_point(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "txmux"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
