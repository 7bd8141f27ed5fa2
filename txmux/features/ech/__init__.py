"""Encrypted ClientHello: a listener opens the hellos that clients hide from the network (RFC 9849)."""

from __future__ import annotations

from collections.abc import Iterator

from txmux.features.ech.forwarding import can_forward
from txmux.rules.feature import Feature, HelloOpenings
from txmux.rules.model import Refusal, Rules
from txmux.rules.optional import imported_late, named
from txmux.rules.problems import Problem
from txmux.rules.reading.context import PATH
from txmux.rules.reading.values import KeyFiles, SectionKey


def _lint(rules: Rules) -> Iterator[Problem]:
    """Find routes to which no inner hello can be forwarded."""
    from txmux.rules.lint.coverage import lines_of  # noqa: PLC0415 - it is for rules that are read

    for listener in rules.listeners:
        if "ech_keys" not in listener.more:
            continue
        for route, number, line in lines_of(rules.routes_of(listener)):
            is_tls = line.name == "tls" and not line.negated
            if is_tls and not can_forward(route, Refusal.CLOSE):
                message = f"hellos in which [listen {listener.name}] finds such a name hidden go by their outer name, since the socket is handed over, or OpenSSL is older than 4 here; do not hide it"
                yield route.section.problem(message, "match", number)


def _check(rules: Rules) -> Iterator[Problem]:
    if any("ech_keys" in listener.more for listener in rules.listeners):
        from txmux.features.ech.warnings import ech_warnings  # noqa: PLC0415 - OpenSSL takes a while

        yield from ech_warnings(rules)


# fmt: off
FEATURE = Feature(
    "ech",
    keys={"listen": {
        "ech_keys": SectionKey(PATH, example="/etc/txmux/ech", streams_only="works only over TCP; remove it", files=KeyFiles("sent-folder", is_secret=True, reader="txmux.features.ech.keys:read_key_files", suffixes=(".ech", ".pem")), loads=lambda _: ("txmux.features.ech.keys", "txmux.client.tls.terminator"), meaning=
            "[hidden names](#encrypted-clienthello) are opened by this file with a key of Encrypted ClientHello, or a folder of such files (PEM, RFC 9934)"),
    }},
    finds={"lint": (_lint,), "check": (_check,)},
    openings=HelloOpenings("ech_keys", "open hidden hellos by these keys: a file or a folder, as for 'ech_keys'", imported_late("txmux.features.ech.keys:EchKeys")),
    rows=lambda: named("txmux.features.ech.rows:ROWS"),
    commands={"ech": "Make a key of Encrypted ClientHello, or show what is published."},
)
# fmt: on
