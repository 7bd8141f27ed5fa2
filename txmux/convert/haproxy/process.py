"""The section ``global`` of an ``haproxy.cfg``: the process, its limits and its log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.haproxy.lines import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from txmux.convert.haproxy.lines import Line
    from txmux.convert.writer import Draft

_KEYS = {
    "gid": "group",
    "grace": "grace",
    "group": "group",
    "hard-stop-after": "drain_timeout",
    "maxconn": "max_connections",
    "nbproc": "workers",
    "nbthread": "workers",
    "uid": "user",
    "user": "user",
}
_TIMES = frozenset({"grace", "hard-stop-after"})
_DIFFERENT = {
    "maxconn": "HAProxy lets further clients wait, and txmux closes them",
    "nbproc": "limits of backends and of servers hold for each worker",
    "nbthread": "limits of backends and of servers hold for each worker",
}
_OF_BINDS = "ssl-default-bind-options"
_ELSEWHERE = frozenset({"ca-base", "crt-base", "ssl-server-verify"})


def add_process(
    settings: Sequence[Line], draft: Draft, no_counterpart: Callable[[Line], None]
) -> None:
    """Write ``[txmux]``.

    Args:
        settings: The lines of ``global``.
        draft: Where the section goes, if there is something to write.
        no_counterpart: Tells of a line that is left.
    """
    found: dict[str, tuple[str, Line]] = {}
    for line in map(_without_minimum, settings):
        name, value = line.words[0], line.words[1] if len(line.words) > 1 else ""
        if name in _KEYS and value:
            text = duration(value) if name in _TIMES else value
            if (_KEYS[name], text) != ("workers", "1"):
                found[_KEYS[name]] = (text, line)
        elif name == "log" and value == "stdout":
            found["access_log"] = (value, line)
        elif name not in _ELSEWHERE and line.words != (_OF_BINDS,):
            no_counterpart(line)
    if found:
        section = draft.section("txmux", line=next(iter(found.values()))[1].number)
        for key, (text, line) in found.items():
            section.add(key, text, line.number)
            why = _DIFFERENT.get(line.words[0])
            if why:
                draft.warn(line.number, f"{line}: {why}", section)


def _without_minimum(line: Line) -> Line:
    """Leave out the oldest version of TLS, which each ``bind`` gets: see `txmux.convert.haproxy.references`."""
    if line.words[0] != _OF_BINDS or "ssl-min-ver" not in line.words:
        return line
    place = line.words.index("ssl-min-ver")
    return attrs.evolve(line, words=(*line.words[:place], *line.words[place + 2 :]))
