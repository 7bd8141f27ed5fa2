"""Warnings about ``match =`` lines that match no client, others than they seem to, or more than a matcher would."""

import re
from collections.abc import Iterator, Mapping

from txmux.detection.registry import transports_of
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Transport, Verdict
from txmux.matchers.payload import bytes_from_hex, bytes_from_text
from txmux.rules.lint.coverage import HOSTS, lines_of
from txmux.rules.model import Rules
from txmux.rules.problems import Problem
from txmux.transport import is_address
from txmux.wire.globs import PLAIN_HOST

_WORDS = re.compile(rb"[A-Za-z0-9 ]*")
"""Text that many protocols may begin with."""
_LEAST_BYTES = 2
_NOT_ASKED = frozenset({"any", "payload", "random", "regex"})


def cut_signatures(rules: Rules, matchers: Mapping[str, IProtocolMatcher]) -> Iterator[Problem]:
    """Find bytes that are the beginning of what one matcher recognises, and of no other."""
    named = [
        route for route in rules.routes if any("payload" in one.text for one in route.alternatives)
    ]
    for route, number, line in lines_of(named):
        if line.name != "payload" or line.options.keys() & {"mask", "offset"}:
            continue
        text, digits = line.options.get("text"), line.options.get("hex", "")
        data = bytes_from_hex("hex", digits) if text is None else bytes_from_text(text)
        name = _undecided(data, matchers)
        if name is not None:
            message = (
                f"{line.text!r} is how some clients of '{name}' begin, and others begin otherwise; "
                f"'match = {name}' knows all of them"
            )
            yield route.section.problem(message, "match", number)


def _undecided(data: bytes, matchers: Mapping[str, IProtocolMatcher]) -> str | None:
    """Name the only matcher for TCP that does not rule some first bytes out, if more of them would decide."""
    if len(data) < _LEAST_BYTES or _WORDS.fullmatch(data):
        return None
    candidate = None
    for name, matcher in matchers.items():
        if name in _NOT_ASKED or Transport.TCP not in transports_of(matcher):
            continue
        try:
            verdict = matcher.predicate({})(Peeked(data))
        except Exception:  # nosec B112  # noqa: BLE001, S112 - a plugin may need options, or raise anything
            continue
        if verdict is Verdict.NO:
            continue
        if verdict is Verdict.MATCH or candidate is not None:
            return None
        candidate = name
    return candidate


_SOFTWARE = ("OpenSSH", "PuTTY", "WinSCP", "AsyncSSH", "JSCH", "Cyberduck", "paramiko", "libssh")
"""Programs whose names are often written in another case than their clients send them."""

_MEANT_PROTOCOLS = {
    **dict.fromkeys(("http2", "http/2", "http/2.0", "H2"), "h2"),
    **dict.fromkeys(("http1", "http1.1", "http/1", "http", "https", "HTTP/1.1"), "http/1.1"),
    "http3": "h3",
}
"""What is written for the names of protocols in ALPN (IANA, "TLS Application-Layer Protocol Negotiation (ALPN) Protocol IDs")."""

_LEAST = 4
_BEGINNING = re.compile(r"~\^?(?P<word>\w+)(?![?*{\w])")
"""The word that an expression begins with, and what it matches too."""
_NOT_IN_NAMES = re.compile(r"[^\w.*?:-]")
_LIKE_V6 = re.compile(r"\[?[0-9a-f?*]*:[0-9a-f:.?*]*(?:%[\w.]+)?\]?", re.IGNORECASE)
_IDENTIFICATION = re.compile(r"SSH-[0-9.]+-", re.IGNORECASE)


def suspicious_patterns(rules: Rules) -> Iterator[Problem]:
    """Find patterns that cannot match any value of their option."""
    for route, number, line in lines_of(rules.routes):
        for option, value in line.given:
            if value.startswith("~"):
                messages = [_of_expression(line.known[option], value)]
            else:
                messages = [
                    _of_pattern(line.known[option], one.strip()) for one in value.split(",")
                ]
            for message in filter(None, messages):
                yield route.section.problem(f"{option}=: {message}", "match", number)


def _of_expression(option: Option, value: str) -> str:
    begun = _BEGINNING.match(value)
    if option.kind == "path" and begun and "|" not in value:
        return f"{value!r} matches nothing, since a path begins with '/'; write '~/{value[1:].lstrip('^')}'"
    if value.startswith("~^") and not value.endswith(("$", "*", "+")):
        return (
            f"{value!r} has to match the whole value, not only its beginning; write '{value}.*', "
            f"or '{value}$' if that is meant"
        )
    if option.kind == "software" and begun:
        return _of_software(begun["word"])
    return ""


def _of_pattern(option: Option, pattern: str) -> str:
    if option.kind and pattern.startswith("!"):
        return f"'!' has no meaning here; put 'not' before the matcher, and write {pattern[1:]!r}"
    begins, ends = pattern.startswith("^"), pattern.endswith("$")
    if (option.kind and begins) or (option.kind in HOSTS and ends):
        meant = f"~{'' if begins else '.*'}{pattern}{'' if ends else '.*'}"
        return f"{pattern!r} is not a regular expression without '~' in front; write {meant!r}"
    if option.kind in HOSTS:
        return _of_host(option, pattern)
    if option.kind == "path":
        return _of_path(pattern)
    if option.kind == "protocol" and pattern in _MEANT_PROTOCOLS:
        return f"no client offers a protocol of the name {pattern!r}; write {_MEANT_PROTOCOLS[pattern]!r}"
    return _of_software(pattern, is_whole=True) if option.kind == "software" else ""


def _of_path(pattern: str) -> str:
    path, mark, query = pattern.partition("?")
    if mark and "=" in query:
        return f"{pattern!r}: a path is compared without its query; write {path!r}"
    if pattern.startswith(("/", "*", "?")):
        return ""
    if "://" in pattern:
        meant = f"/{pattern.partition('://')[2].partition('/')[2]}"
    else:
        meant = f"*{pattern}" if pattern.startswith(".") else f"/{pattern}"
    return f"{pattern!r} matches nothing, since a path begins with '/'; write {meant!r}"


def _of_host(option: Option, pattern: str) -> str:
    if PLAIN_HOST.fullmatch(pattern):
        return ""
    if re.search(r"\s", pattern):
        return f"{pattern!r} has a blank, which is not in any name; write commas between names"
    if option.name == "sni" and is_address(pattern.removeprefix("[").removesuffix("]")):
        return (
            f"{pattern!r} matches nothing: clients that connect to an address send no name (RFC 6066, section 3); "
            "write sni=none"
        )
    wrong = None if _LIKE_V6.fullmatch(pattern) else _NOT_IN_NAMES.search(pattern)
    if wrong is None or option.kind == "domain":
        return ""
    hints = {
        **dict.fromkeys("|;", "write commas between names"),
        **dict.fromkeys("/@[]", "write the name alone"),
    }
    hint = hints.get(wrong[0], "a regular expression has '~' in front")
    return f"{pattern!r} has {wrong[0]!r}, which is not in any name; {hint}"


def _of_software(pattern: str, *, is_whole: bool = False) -> str:
    if is_whole and pattern in _SOFTWARE:
        return f"{pattern!r} has to match all that a client sends, its version, too; write '{pattern}*'"
    begin = _IDENTIFICATION.match(pattern)
    if begin:
        return f"it is compared with what follows 'SSH-2.0-'; write {pattern[begin.end() :]!r}"
    head = re.split(r"[*?]", pattern, maxsplit=1)[0]
    for name in _SOFTWARE:
        length = min(len(name), len(head))
        begun, right = head[:length], name[:length]
        if length >= _LEAST and begun.casefold() == right.casefold() and begun != right:
            return f"case counts, and {pattern!r} does not match {name!r}; write '{right}{pattern[length:]}'"
    return ""
