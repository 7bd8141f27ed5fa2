"""`txmux completion`: scripts that complete these commands in a shell."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from txmux.cli import make_parser
from txmux.cli.remote import command
from txmux.cli.remote.errors import of_txmux
from txmux.errors import MuxError, how_to_install

SHELLS = ("bash", "zsh", "fish")  # the supported shells

_PLAIN = re.compile(r"[\w@%+=:,./\[\]{}-]+")  # bash inserts names unquoted: $(…) would be run
_FILES = {"FILE", "PATH"}  # metavars that are completed with names of files
_PATIENCE = 1.0  # seconds to wait for a service while a user is typing

_FILTERED = ("close", "connections", "top")
SERVICE_NAMES = {
    ("drain", "name"): "targets",
    ("hold", "backend"): "backends",
    ("events", "route"): "routes",
    ("pause", "listener"): "listeners",
    ("release", "backend"): "backends",
    ("resume", "listener"): "listeners",
    ("servers", "backend"): "backends",
    ("weight", "name"): "targets",
    **{
        (name, filter_): f"{filter_}s"
        for name in _FILTERED
        for filter_ in ("backend", "listener", "route", "server")
    },
}
"""Names of the running service that complete an argument, by the command and the argument."""

# Names are read line by line: `compgen -W` would expand what is in them.
_BASH_NAMES = """
_txmux_{kind}() {{
  local name
  while IFS= read -r name; do
    [[ $name == "$1"* ]] && printf '%s\\n' "$name"
  done < <(txmux completion bash --names {kind} "${{COMP_WORDS[@]}}" 2>/dev/null)
}}"""
_ZSH_NAMES = """
_txmux_names() {
  compadd "${@[1,-2]}" -- ${(f)"$(txmux completion zsh --names $@[-1] $words 2>/dev/null)"}
}"""
_BASH_END = """
# Bash splits words at colons, and names of servers have some.
_txmux() {
  local line=${COMP_LINE:0:COMP_POINT} last COMP_WORDS COMP_CWORD
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *[[:space:]] ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _shtab_txmux
  last=${COMP_WORDS[COMP_CWORD]}
  if [[ $last == *:* && $COMP_WORDBREAKS == *:* ]]; then
    last=${last%"${last##*:}"}
    COMPREPLY=("${COMPREPLY[@]#"$last"}")
  fi
}
complete -o bashdefault -F _txmux txmux"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    # For the scripts: the kind of names, and the words of the line so far.
    parser.add_argument("--names", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.names:
        kind, *words = arguments.names
        for name in dict.fromkeys(_names(kind, words)):
            if _PLAIN.fullmatch(name):
                print(name)
    else:
        print(script_for(arguments.shell))
    return 0


def script_for(shell: str) -> str:
    try:
        import shtab  # noqa: PLC0415 - it is optional
    except ModuleNotFoundError:
        message = f"the script needs the package shtab; install it: {how_to_install('completion')}"
        raise MuxError(message) from None
    from txmux.detection.registry import installed_matchers  # noqa: PLC0415 - names need no matchers

    parser = make_parser()
    for name, action in _actions(parser):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif kind := SERVICE_NAMES.get((name, action.dest)):
            action.complete = _complete(kind)  # type: ignore[attr-defined]
        elif (name, action.dest) == ("matchers", "name"):
            action.choices = [*installed_matchers()]
    script: str = shtab.complete(parser, shell)
    # The folders that the shells read.
    script = script.replace("/bash_completion/", "/bash-completion/completions/")
    script = script.replace("/zsh_completion", "/zsh/site-functions")
    return script.rstrip() + (_BASH_END if shell == "bash" else "")


def _complete(kind: str) -> dict[str, Any]:
    return {
        "bash": f"_txmux_{kind}",
        "zsh": f"_txmux_names {kind}",
        "fish": f"(txmux completion fish --names {kind} (commandline -opc) 2>/dev/null)",
        "preamble": {"bash": _BASH_NAMES.format(kind=kind), "zsh": _ZSH_NAMES},
    }


def _actions(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Yield the arguments of the commands of a parser, with the commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from ((name, argument) for argument in inner._actions)


def _names(kind: str, words: Sequence[str]) -> Iterator[str]:
    """Ask the service that the words of a line select; without one there are no names."""
    parser = argparse.ArgumentParser(add_help=False)
    command.configure(parser, seconds=_PATIENCE)
    # A shell that completes a line has not expanded it.
    arguments, _ = parser.parse_known_args([*map(os.path.expanduser, words)])
    arguments.timeout = _PATIENCE
    try:
        with of_txmux():
            yield from _NAMES[kind](command.reach(arguments))
    except MuxError:
        return


def _targets(ask: command.Ask) -> Iterator[str]:
    for backend in ask("GET", "/api/backends"):
        name = backend["name"]
        yield name
        yield from (
            f"{name}/{row['server']}" for row in backend["servers"] if row["server"] != name
        )


_NAMES: dict[str, Callable[[command.Ask], Iterator[str]]] = {
    "backends": lambda ask: (backend["name"] for backend in ask("GET", "/api/backends")),
    "listeners": lambda ask: (row["name"] for row in ask("GET", "/api/status")["listeners"]),
    "routes": lambda ask: (route["name"] for route in ask("GET", "/api/routes")),
    "servers": lambda ask: (
        server["server"] for backend in ask("GET", "/api/backends") for server in backend["servers"]
    ),
    "targets": _targets,
}
