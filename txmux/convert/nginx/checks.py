"""Checks of servers by the modules nginx_tcp_proxy_module, nginx_upstream_check_module and ngx_healthcheck_module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.matching import escaped, option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.convert.nginx.reader import Directive
    from txmux.convert.writer import Draft, Section

CHECKS = frozenset(
    {
        *("check", "check_http_expect_alive", "check_http_send", "check_keepalive_requests"),
        *("check_shm_size", "check_smtp_expect_alive", "check_smtp_send"),
    }
)
"""The directives that are read here."""

_USUAL = {"interval": "30000", "timeout": "1000", "rise": "2", "fall": "5"}
_REQUEST = "GET / HTTP/1.0\r\n\r\n"
_ALIVE = ("http_2xx", "http_3xx")
_KINDS: Mapping[str, list[str]] = {
    "imap": [option("expect", "* OK")],
    # The number of the first packet, and the version of the protocol (MySQL internals, HandshakeV10).
    "mysql": [option("expect", r"\0\n")],
    "pop3": [option("expect", "+OK")],
    "smtp": [option("expect", "220")],
    "ssl_hello": ["tcp", "tls=yes"],
    "tcp": ["tcp"],
}


@attrs.frozen
class Asked:
    """What servers are asked.

    Attributes:
        directive: Says so.
        words: The value of ``check`` in txmux; empty if there is none like that.
        unknown: Parameters that are not known here.
    """

    directive: Directive
    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def write(self, section: Section, draft: Draft, *, is_udp: bool = False) -> None:
        """Write it, or tell that it is lost.

        Args:
            section: Where it goes.
            draft: Where is told what is lost.
            is_udp: Whether the servers are spoken to by datagrams, of which nothing but a connection elsewhere could be checked.
        """
        line = self.directive.line
        if not self.words or (is_udp and not any(word.startswith("port=") for word in self.words)):
            draft.look(line, f"{self.directive}: is left out: it has no counterpart", section)
            return
        section.add("check", " ".join(self.words), line)
        if self.unknown:
            message = f"{self.directive}: no counterpart of {', '.join(self.unknown)}"
            draft.warn(line, message, section)


def read_check(directives: Iterable[Directive]) -> Asked | None:
    """Read what is in an ``upstream`` about checks; ``None`` if there are none."""
    latest = {d.name: d for d in directives if d.name in CHECKS}
    check = latest.get("check")
    if check is None:
        return None
    given = dict(word.partition("=")[::2] for word in check.parameters)
    kind, port = given.pop("type", "tcp"), given.pop("port", "0")
    times = {name: given.pop(name, usual) for name, usual in _USUAL.items()}
    given.pop("default_down", "")
    if kind == "smtp":
        given["check_smtp_send"] = ""  # only the greeting is waited for
    words = _http(latest) if kind == "http" else _KINDS.get(kind, [])
    if words:
        words = [*words, *([f"port={port}"] * (port != "0"))]
        words += [f"{name}={_time(times[name])}" for name in ("interval", "timeout")]
        words += [f"{name}={times[name]}" for name in ("rise", "fall")]
    return Asked(check, tuple(words), tuple(given))


def _http(latest: Mapping[str, Directive]) -> list[str]:
    send, alive = latest.get("check_http_send"), latest.get("check_http_expect_alive")
    words = ["http", option("send", escaped(send.value if send else _REQUEST))]
    statuses = alive.parameters if alive else _ALIVE
    expect = ",".join(status.removeprefix("http_") for status in statuses)
    return words if statuses == _ALIVE else [*words, f"expect={expect}"]


def _time(text: str) -> str:
    """Write milliseconds; what cannot be read stays as it is, so that the parser refuses it."""
    if not text.isdecimal():
        return text
    number = int(text)
    return f"{number}ms" if number % 1000 else f"{number // 1000}s"
