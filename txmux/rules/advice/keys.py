"""What may be meant by files, headers, lines and keys that are not those of rules."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from txmux.errors import joined
from txmux.rules.advice import habits
from txmux.rules.advice.matching import MEANT
from txmux.rules.advice.words import Texts, did_you_mean, is_read, like_key, nearest
from txmux.rules.model import Section
from txmux.transport import bracketed, is_address

Tables = Mapping[str, Mapping[str, Any]]
Readers = Mapping[str, Callable[[str], object]]

_CONVERT = "'txmux convert FILE > rules.ini' writes it as rules"
_HEADERS = "write sections such as [listen public], and under them lines such as 'endpoint = :443'"

# fmt: off
_STUNNEL = re.compile(r"^[^\S\n]*accept\s*=", re.MULTILINE)
_TRAEFIK = re.compile(r"^(?:(?:entryPoints|tcp|udp):\s*|[^\S\n]*\[+(?:entryPoints|(?:tcp|udp)\.(?:routers|services))\b.*)$", re.MULTILINE)
_KINDS = (
    (re.compile(r"^[^\S\n]*(?:stream|http|events|upstream\s+\S+|server)\s*\{", re.MULTILINE), "a configuration of nginx", _CONVERT),
    (re.compile(r"^[^\S\n]*(?:listen|protocols)\s*[:=]\s*(?:\(|$)(?=[^-]*[({])", re.MULTILINE), "a configuration of sslh", _CONVERT),
    (re.compile(r"^(?:global|defaults|(?:frontend|backend|listen)\s+[\w.-]+)\s*(?:#.*)?$", re.MULTILINE), "a configuration of HAProxy", _CONVERT),
    (re.compile(r"^[ \t]*listen(?:er)?[ \t][^;{}\n]*\{[^\S\n]*\n\s*prot", re.MULTILINE), "a configuration of sniproxy", _CONVERT),
    (_STUNNEL, "a configuration of stunnel", _CONVERT),
    (_TRAEFIK, "a configuration of Traefik", _CONVERT),
    (re.compile(r"\A\s*\{\s*[\"}]"), "JSON", _HEADERS),
    (re.compile(r"\{\s*$", re.MULTILINE), "a configuration with braces", _HEADERS),
    (re.compile(r"^[\w-]+:\s*$", re.MULTILINE), "YAML", _HEADERS),
)
# fmt: on
_OWN_SECTION = re.compile(r"(?im)^[^\S\n]*\[+\s*(?:txmux|listen|route|backend)\b")
_SECTION = re.compile(r"^[^\S\n]*\[", re.MULTILINE)
_COMMENTS = re.compile(r"^[^\S\n]*[#;].*$", re.MULTILINE)


def foreign_format(text: str) -> str:
    """Return what a file without a section of rules is, and what to do with it; empty if that is not known."""
    has_sections = _SECTION.search(text) and not (_STUNNEL.search(text) or _TRAEFIK.search(text))
    if _OWN_SECTION.search(text) or has_sections:
        return ""
    plain = _COMMENTS.sub("", text)
    for pattern, what, advice in _KINDS:
        if pattern.search(plain):
            return f"this is {what}, not a rules file; {advice}"
    return ""


_NO_COMMENT = ("//", "/*", "--")
_COLON = re.compile(r"([a-z_]+)\s*:(?:(?:\s*=\s*|\s+)(.*))?")
"""A key and its value, as YAML and others write them."""


def line(text: str, header: str, tables: Tables) -> tuple[str, str, str] | None:
    """Return of a line that is no key and its value: the key and the value that may be meant, and what to say; ``None`` is nothing."""
    if text.startswith(_NO_COMMENT):
        return "", "", "a comment begins with '#'"
    kind = header.partition(" ")[0]
    kind = habits.SECTION_ALIASES.get(kind.casefold(), kind)
    hints = habits.HINTS.get(kind, ()) if tables else ()
    words = {**dict.fromkeys(hints, ""), **tables.get(kind, {})}
    if colon := _COLON.fullmatch(text):
        key, value = colon[1], (colon[2] or "").strip("'\"")
        hint = f"; write '{key} = {value or words[key]}'" if words.get(key) else ""
        key = key if habits.normalised_key(key) in words else ""
        return key, value, f"a key is followed by '=', not ':'{hint}"
    before, equals, _ = text.partition("=")
    if equals and not (" " in before.strip() and words.get(before.split()[0])):
        return None
    for length in (2, 1):
        *parts, value = text.split(None, length)
        key = " ".join(parts)
        if len(parts) == length and (key in words or habits.normalised_key(key) in words):
            message = f"a line needs '=' behind {key!r}" if words.get(key) else ""
            return key, re.sub(r"^[-+=>:]+\s+", "", value), message
    return None


_DOTTED = re.compile(r"([a-z]+)[.:/]([\w.-]+)")


def header(
    section: Section,
    headers: Mapping[str, str],
    matchers: Collection[str],
    is_name: Callable[[str], object],
) -> tuple[str, str, str]:
    """Return of a section with an unknown header: the kind that may be meant, or nothing; its name; and what to say."""
    word, blank, name = section.header.partition(" ")
    dotted = None if blank else _DOTTED.fullmatch(word)
    if dotted and {dotted[1]} & {*headers, *habits.SECTION_ALIASES}:
        word, name = dotted.groups()
    kind = _kind_meant(word.casefold(), word, headers)
    if word.casefold() in matchers and not kind:
        kind, name = "route", word
    if word.casefold() == "server":  # in nginx it listens, elsewhere it is connected to
        listens = {"bind", "endpoint", "listen"} & {*map(habits.normalised_key, section.entries)}
        kind = "listen" if listens else "backend"
    if dotted and name:
        return kind, name, f"a blank is between the words of a header; write [{kind} {name}]"
    full = f"[{kind} {name}]" if is_name(name) else headers.get(kind, "")
    hint = f"; did you mean {headers[kind] if kind == 'txmux' else full}?" if kind else ""
    return kind, name, f"unknown section{hint} (there are {', '.join(headers.values())})"


def _kind_meant(folded: str, word: str, headers: Mapping[str, str]) -> str:
    if word in headers:
        return word
    begun = (kind for kind in headers if folded.startswith(kind))
    return habits.SECTION_ALIASES.get(folded) or nearest(word, headers) or next(begun, "")


def name_meant(kind: str, name: str, is_name: Callable[[str], object]) -> str:
    plain = "-".join(name.translate(habits.PLAIN).strip("'\"").split())
    return f"; did you mean [{kind} {plain}]?" if is_name(plain) else ""


def keys_meant(kind: str, section: Section, known: Texts) -> set[str | None]:
    """Return the keys that may be meant by what is in a section, so that they are not reported as missing."""
    meant: set[str | None] = set()
    for entry in section.entries.values():
        hint = habits.HINTS.get(kind, {}).get(habits.normalised_key(entry.key), "")
        if habits.AFTER_IT not in hint:
            meant.update(re.findall(r"'([a-z_]+)(?: = [^']*)?'", hint))
        meant.add(entry.key if entry.key in known else nearest(entry.key, known))
        meant.update(like_key(item.text) for item in entry.items[1:] if item.below != entry.below)
    return meant


def unknown_key(*facts: Any) -> str:
    return f"unknown key; {next(_of_key(*facts))}"


def _of_key(
    name: str, kind: str, section: Section, headers: Mapping[str, str], tables: Tables, matchers: Collection[str], readers: Readers
) -> Iterator[str]:  # fmt: skip
    """Yield what to do about an unknown key, the best advice first; `readers` read what stands for them."""
    plain = habits.normalised_key(name)
    value = next((item.text for item in section.items(name)), "")
    if hint := habits.HINTS[kind].get(plain):
        yield _with_value(hint, value, readers)
    if others := [headers[other] for other in tables if name in tables[other]]:
        yield f"it belongs in {joined(others)}"
    for other, hints in habits.HINTS.items():
        hint = hints.get(plain, "")
        if hint.startswith("write") and "[" not in hint:
            yield f"in {headers[other]}, {_with_value(hint, value, readers)}"
    if (meant := MEANT.get(name.casefold(), name.casefold())) in matchers and kind != "backend":
        yield f"write 'match = {meant}' in a [route {meant}] with 'backend = HOST:PORT'"
    words = [item.text for item in (*section.items("endpoint"), *section.items("server"))]
    is_udp = any(word.lower().startswith("udp:") for word in words)
    unfit = "streams_only" if is_udp else "datagrams_only"
    fitting = [one for one, key in tables[kind].items() if not getattr(key, unfit)]
    best = nearest(name, (*fitting, *chain(*tables.values())))
    if best in fitting:
        yield did_you_mean(name, fitting).removeprefix("; ")
    elif best is not None:
        there = joined([headers[other] for other in tables if best in tables[other]])
        yield f"did you mean {best!r} in {there}?"
    yield f"{headers[kind]} has nothing like it; remove it"


def _with_value(hint: str, value: str, readers: Readers) -> str:
    """Return the hint for an unknown key, with the written endpoint, server or name in place of the example if it is valid."""
    word = next(iter(value.rstrip(";").split()), "").strip("\"'")
    endpoint = f":{word}" if word.isdecimal() else word.removeprefix("*")
    server = (habits.without_scheme(word) or (word, False))[0]
    host = server.strip("[]")
    is_host = is_address(host) or host == "localhost"
    if hint in {habits.BACKEND, habits.NAMED} and is_host:
        server = f"{bracketed(host)}:PORT"
    is_server = ":" in server and (is_host or is_read(readers["server"], server))
    if hint in {habits.BACKEND, habits.NAMED} and is_server:
        return f"write 'backend = {server}'"
    if habits.LISTEN in hint and is_read(readers["endpoint"], endpoint):
        return hint.replace(habits.LISTEN, f"endpoint = {endpoint}")
    return hint.replace("www.example.com", word) if habits.LIKE_HOST.fullmatch(word) else hint
