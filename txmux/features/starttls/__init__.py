"""STARTTLS: clients of a listener begin in the clear, and ask for TLS; the dialogues until then, one protocol or kind of protocols a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from txmux.rules.feature import Feature, FeatureStage
from txmux.rules.model import Rules, Section
from txmux.rules.problems import Problem
from txmux.rules.reading.values import SectionKey, ValueKind, words

if TYPE_CHECKING:
    from txmux.rules.tracing import TracedSample

NAMES = ("smtp", "imap", "pop3", "ftp", "xmpp", "ldap")
_WITHOUT_GREETING = ("xmpp", "ldap")


def _contradictions(section: Section, found: Mapping[str, Any]) -> Iterator[Problem]:
    protocol = found.get("more", {}).get("starttls")
    for key in {"first", "silent"} & section.entries.keys() if protocol else ():
        message = "is not for clients that begin in the clear by 'starttls'; remove one of the two"
        yield section.problem(message, key)
    if "starttls_banner" in section.entries and protocol in {None, *_WITHOUT_GREETING}:
        message = "is for 'starttls' of a protocol whose servers speak first; remove it"
        yield section.problem(message, "starttls_banner")


def _lint(rules: Rules) -> Iterator[Problem]:
    """Find lines that do not match TLS, though all clients of their route begin with that."""
    if not any("starttls" in listener.more for listener in rules.listeners):
        return
    from txmux.rules.lint.access import is_never_tls  # noqa: PLC0415 - for rules that are read
    from txmux.rules.lint.coverage import lines_of  # noqa: PLC0415 - the same

    for route, number, line in lines_of(rules.routes):
        listeners = [listener for listener in rules.listeners if route.stands_under(listener)]
        clear = [listener.name for listener in listeners if "starttls" in listener.more]
        if clear and len(clear) == max(len(listeners), len(route.under)) and is_never_tls(line):
            message = f"{line.text!r} is never TLS, with which clients of [listen {clear[0]}] begin; match tls, or remove this line"
            yield route.section.problem(message, "match", number)


def _seen(protocol: str, sample: TracedSample) -> TracedSample:
    """Return what comes behind the client's command."""
    from txmux.features.starttls.protocols import tls_of  # noqa: PLC0415 - few listeners have it
    from txmux.wire.facts import printable  # noqa: PLC0415 - the same

    stream = sample.stream and attrs.evolve(sample.stream, server_first=False)
    data, problem = tls_of(protocol, sample.data)
    facts = {**sample.facts, "starttls": protocol}
    refused = None if data else printable(problem)
    return attrs.evolve(sample, data=data, stream=stream, refused=refused, facts=facts)


# fmt: off
FEATURE = Feature(
    "starttls",
    keys={"listen": {
        "starttls": SectionKey(words(*NAMES), example="smtp", streams_only="works only over TCP; remove it", meaning=
            "clients begin in the clear by this protocol, and ask for TLS ([STARTTLS](#starttls))"),
        "starttls_banner": SectionKey(ValueKind(str, "text"), example="mail.example.com ESMTP", streams_only="works only over TCP; remove it", meaning=
            "clients are greeted with this text; by default the first server's"),
    }},
    contradictions={"listen": _contradictions},
    stages=(FeatureStage("starttls", "starttls", "txmux.features.starttls.stage:StartTLSMaker", then=("peeking",), waits_for="the client's TLS, by [`starttls`](rules.md#starttls)", seen=_seen),),
    finds={"lint": (_lint,)},
)
# fmt: on
