"""Rules from options of `txmux run`, in place of a file."""

import argparse
import pkgutil
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from txmux import matchers
from txmux.detection.registry import installed_matchers, transports_of
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Transport

_SETTINGS = ("user", "workers", "admin", "admin_token")
_SINGLE = ("silent", "default", *_SETTINGS)
NAMES = ("listen", *_SINGLE, "print")
"""Options without a rules file, but for those of protocols."""

_NOT = {"any"}  # which is what --default is for


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
        given = [("match", name), ("backend", _server(server, is_by_udp))]
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
