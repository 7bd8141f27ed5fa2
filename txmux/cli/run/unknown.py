"""What to write instead of an option that `txmux run` does not have."""

from __future__ import annotations

from txmux.cli.run.fromoptions import NAMES, plain_matchers
from txmux.detection.registry import installed_matchers
from txmux.detection.transports import transports_of
from txmux.interfaces import Transport
from txmux.rules.problems import nearest
from txmux.rules.reading.matchhints import MEANT, SERVER_FIRST

_OTHERS = {
    "-p": "write --listen",
    "--port": "write --listen",
    "--bind": "write --listen",
    "-u": "write --user",
    "--on-timeout": "write --silent",
    "-r": "write the file alone: txmux run FILE",
    "--rules": "write the file alone: txmux run FILE",
}
"""Options of other programs, sslh for one, and what to write instead."""


def unknown_option(word: str) -> str:
    """Return what to write.

    Args:
        word: An argument that is not known.

    Returns:
        What ends a message; nothing for what is not an option, or is like none.
    """
    option = word.partition("=")[0]
    if not option.startswith("-"):
        return ""
    return _OTHERS.get(option) or _protocol(option.lstrip("-").casefold())


def _protocol(name: str) -> str:
    protocols = [matcher.name for matcher in plain_matchers()]
    meant = MEANT.get(name, name)
    near = nearest(name, [*protocols, *NAMES])
    hints = (
        (
            name in _over_udp(),
            "its clients use UDP: that needs a rules file, with 'endpoint = udp:PORT' in it",
        ),
        (name in SERVER_FIRST, "its clients wait for the server to speak: write --silent"),
        (meant == "any", "write --default"),
        (meant != name and meant in protocols, f"write --{meant}"),
        (
            meant != name or name in {"payload", "regex"},
            f"that needs a rules file, with 'match = {meant}' in it; --print begins one",
        ),
        (near, f"did you mean --{near}?"),
    )
    return next((hint for applies, hint in hints if applies), "")


def _over_udp() -> set[str]:
    """Return the names of matchers that are for UDP only."""
    return {
        name
        for name, matcher in installed_matchers().items()
        if Transport.TCP not in transports_of(matcher)
    }
