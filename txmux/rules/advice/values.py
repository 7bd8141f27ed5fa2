"""What may be meant by values that are written as elsewhere, or that have something around them."""

import ipaddress
import re
import unicodedata
import zoneinfo
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import pairwise
from typing import Any

from txmux.rules.advice.habits import CHOICE_WORDS, CLIENT_CA, PLAIN, each
from txmux.rules.advice.words import Texts, did_you_mean, hinted, like_key, with_advice, with_hint
from txmux.rules.model import LOCAL, NAMES, PORT, KeyEntry, ValueLine
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import SERVER_KEYS
from txmux.rules.reading.ini import LIKE_COMMENT, QUOTES
from txmux.rules.reading.values import ValueKind

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_LIKE_DURATION = re.compile(
    r"([0-9.]+)\s*(ms(?:ec)?|milliseconds?|s(?:ec(?:ond)?s?)?|min(?:ute)?s?|h(?:ou)?rs?|d(?:ays?)?)",
    re.IGNORECASE,
)
_UNITS = {"ms": "ms", "mi": "m", "s": "s", "se": "s", "ho": "h", "hr": "h", "d": "d", "da": "d"}
_ENDLESS = frozenset({"never", "none", "off", "infinite", "infinity", "unlimited", "forever", "-1"})
"""Words of other programs for no limit of time."""

_LIKE_SIZE = re.compile(r"([0-9]{1,12})\s*([KMG])(?:i?B)?", re.IGNORECASE)
_LIKE_RATE = re.compile(r"([0-9]{1,12})\s*([KMG]i?)?B?(?:/s|ps)?", re.IGNORECASE)
_LIKE_BITS = re.compile(r"([1-9][0-9]{0,6})\s*([KMGkmg]?)(?:bit/s|bits?|bps)")
_LIKE_COUNT_RATE = re.compile(r"([1-9][0-9]{0,5})\s*(?:/|r/|per )\s*([smh])[a-z]*", re.IGNORECASE)
_LIKE_NUMBER = re.compile("([0-9]{1,6})([km])", re.IGNORECASE)
_TIMES = {"k": 1000, "m": 1_000_000}
_PORTS = {"dns": 53, "domain": 53, "http": 80, "https": 443, "imaps": 993, "ssh": 22}

_NETWORKS_MEANT = {
    **dict.fromkeys(("all", "any", "*"), "0.0.0.0/0, ::/0"),
    "localhost": "127.0.0.0/8, ::1",
    "yes": "the addresses that it is for, such as 10.0.0.1",
    "private": "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16",
}
_MOST_MEANT = 8

_ON, _OFF = frozenset({"yes", "on", "true", "1"}), frozenset({"no", "off", "false", "0"})
_SWITCHES = {"yes": _ON, "on": _ON, "no": _OFF, "off": _OFF}


def duration(
    messages: Texts,
    text: str,
    is_right: Callable[[str], object],
    write: Callable[[float], str],
    longest: str,
) -> Texts:
    like = _LIKE_DURATION.fullmatch(text)
    meant = f"{like[1]}{_UNITS[like[2].lower()[:2]]}" if like else text.replace(" ", "")
    meant = f"{text}s" if is_right(f"{text}s") else meant
    parts = re.findall("([0-9]{1,6})([wdhms])", text)
    seconds = float(sum(int(number) * _SECONDS[unit] for number, unit in parts))
    if seconds and "".join(map("".join, parts)) == text.replace(" ", ""):
        meant = write(seconds)
    if text.casefold() in _ENDLESS:
        return hinted(messages, f"; the longest is {longest}")
    if re.fullmatch("[1-9][0-9]{0,5}000", text):
        return hinted(
            messages, f"; did you mean '{text[:-3]}s'? Without a unit, HAProxy means milliseconds"
        )
    return hinted(messages, f"; did you mean {meant!r}?" if is_right(meant) else "")


def no_limit(messages: Texts, text: str) -> Texts:
    if text.casefold() in {*_ENDLESS, "0", "no"}:
        return [f"{text!r} is not a duration; for no limit, write none"]
    return messages


def size(messages: Texts, text: str, low: int, high: int) -> Texts:
    like = _LIKE_SIZE.fullmatch(text)
    unit = like[2].upper() if like else ""
    number = int(like[1]) * 1024 ** " KMG".index(unit) if like else -1
    return hinted(
        messages, f"; did you mean '{like[1]}{unit}iB'?" if like and low <= number <= high else ""
    )


def rate(messages: Texts, text: str) -> Texts:
    like, bits = _LIKE_RATE.fullmatch(text), _LIKE_BITS.fullmatch(text)
    prefix = like[2][0].upper() + "iB" if like and like[2] else ""
    meant = f"{like[1]}{prefix}/s" if like and int(like[1]) else ""
    if bits:
        meant = f"{int(bits[1]) * 1000 ** ' kmg'.index(bits[2].lower() or ' ') // 8}/s"
    return hinted(messages, f"; did you mean {meant!r}?" if meant else "")


def connection_rate(messages: Texts, text: str) -> Texts:
    like = _LIKE_COUNT_RATE.fullmatch(text)
    return hinted(messages, f"; did you mean '{like[1]}/{like[2].lower()}'?" if like else "")


def whole_number(messages: Texts, text: str, low: int, high: int, what: str) -> Texts:
    like = _LIKE_NUMBER.fullmatch(text)
    meant = int(like[1]) * _TIMES[like[2].lower()] if like else -1
    meant = _PORTS.get(text, meant) if what == "a port" else meant
    if low == 0 and not what and text.casefold() in _ENDLESS:
        meant = 0
    return hinted(messages, f"; did you mean '{meant}'?" if low <= meant <= high else "")


def boolean(messages: Texts, text: str, *others: str) -> Texts:
    near = next((ours for ours in ("yes", "no") if text.casefold() in _SWITCHES[ours]), "")
    hint = f"; did you mean {near!r}?" if near else did_you_mean(text, ("yes", "no"))
    return hinted(messages, hint or did_you_mean(text, others))


def choice(messages: Texts, text: str, choices: Texts) -> Texts:
    word = text.casefold()
    meant = (CHOICE_WORDS.get(word), *(one for one in choices if word in _SWITCHES.get(one, ())))
    near = next((one for one in meant if one in choices), None)
    return hinted(messages, f"; write {near}" if near else did_you_mean(text, choices))


def options(
    messages: Texts, words: Texts, readers: Collection[str], names: Texts, takes: str
) -> Texts:
    for word, after in pairwise(words):
        if word in readers and after and "=" not in after:
            return [f"{word!r} is not an option; did you mean '{word}={after}'? ({takes})"]
        if messages[0].startswith("no comma") and word.endswith(","):
            break
    near = {word: did_you_mean(word.partition("=")[0], names) for word in words}
    hints = {f"unknown option {word!r} ({takes})": hint for word, hint in near.items()}
    return [with_hint(message, hints.get(message, "")) for message in messages]


def network(messages: Texts, text: str) -> Texts:
    try:
        inside = ipaddress.ip_interface(text)
    except ValueError:
        meant = _networks_meant(text)
        return [f"{text!r} is not a network; {meant}"] if meant else messages
    its = f"'{inside.network}' for the network or '{inside.ip}' for the one address"
    return [f"{text!r} is an address inside a network; write {its}"]


def _networks_meant(text: str) -> str:
    first, dash, last = map(str.strip, text.partition("-"))
    if text.lower() in _NETWORKS_MEANT:
        return f"write {_NETWORKS_MEANT[text.lower()]}"
    left_out = re.match(r"!|not\s", text, re.IGNORECASE)
    if left_out or (len(text.split()) > 1 and not dash):
        keys = "'deny' in [listen NAME] and 'not_from' in [route NAME]"
        return f"{keys} leave networks out" if left_out else "write commas between networks"
    if place := re.fullmatch(r"(country|asn|as|geo|geoip)[:=]?([A-Za-z0-9]+)", text, re.IGNORECASE):
        code = place[2].upper()
        meant = f"as:AS{code}" if code.isdecimal() else f"geo:country={code}"
        return f"write '{meant}' with 'geo_databases = FILE' in [txmux]"
    if re.fullmatch(r"(?=.{3,15}$)([0-9]{1,3}\.){1,3}\*(\.\*)*", text):
        parts = text.partition(".*")[0].split(".")
        return f"write {'.'.join([*parts, *['0'] * (4 - len(parts))])}/{8 * len(parts)}"
    try:
        ends = [ipaddress.ip_address(end) for end in (first, last)]
        networks = [*ipaddress.summarize_address_range(*ends)][: _MOST_MEANT + 1]
    except (ValueError, TypeError):
        networks = []
    is_short = 0 < len(networks) <= _MOST_MEANT
    return f"write {', '.join(map(str, networks))}" if is_short else ""


_CHECKS = {
    **each("connect ftp icmp imap ldap ldap-check on ping pop3 port tcp-check tcpchk true yes", "tcp to see whether the server can be connected"),
    **each("ssl ssl-hello-chk tls", "tcp tls=yes"),
    **each("httpchk option", "http path=/health"),
    **each("pgsql pgsql-check postgresql", "postgres"),
    **each("redis-check valkey", "redis"),
    **each("mariadb mysql-check", "mysql"),
    **each("lmtp smtpchk", "smtp"),
}  # fmt: skip
"""By what others call a kind of check: what to write."""


def check(messages: Texts, word: str, all_kinds: Texts, options: Collection[str]) -> Texts:
    hint = did_you_mean(word, all_kinds)
    if word.startswith("https"):
        hint = "; write http tls=yes"
    elif word.startswith("http:"):
        hint = f"; write http path=/{word.partition('://')[2].partition('/')[2]}"
    elif word in {"off", "no"}:
        hint = "; for no check, remove the key"
    elif word in _CHECKS:
        hint = f"; write {_CHECKS[word]}"
    elif word.partition("=")[0] in options:
        hint = "; the kind of check comes first, as in http path=/health or tcp interval=5s"
    return [f"{messages[0]}{hint}"]


_REQUIRING = frozenset("on optional request require required true verify yes".split())  # noqa: SIM905 - a table
"""Words of other programs that ask for a certificate, and not for one of these."""


def certificate_names(messages: Texts, words: Texts, known: Texts, all_kinds: Texts) -> Texts:
    hints: dict[str, str] = {}
    for word in words:
        kind, _, pattern = word.partition("=")
        its, near = pattern.partition(":")[0], did_you_mean(kind, known)
        hints[f"unknown kind {its!r} "] = did_you_mean(its.lower(), all_kinds)
        hints[f"unknown {kind!r} "] = near
        hints[f"unknown {word!r} "] = f"; {CLIENT_CA}" if word in _REQUIRING else near
    return [
        with_hint(one, next((hint for what, hint in hints.items() if what in one), ""))
        for one in messages
    ]


def day(messages: Texts, text: str, days: Texts) -> Texts:
    meant, (problem, _, advice) = text.lower()[:3], messages[0].rpartition("; ")
    hint = f"; did you mean {meant!r}?" if meant in days else did_you_mean(text, days)
    return [with_advice(f"{problem}{hint}", advice)]


def zone(messages: Texts, text: str, days: Texts, forms: str) -> Texts:
    zones = zoneinfo.available_timezones()
    hint = did_you_mean(text, zones) or "; write one such as Europe/Paris or UTC"
    shifted = re.fullmatch(r"(?:UTC|GMT)([+-])([0-9]{1,2})", text)
    if shifted:  # POSIX counts to the west
        hint = f"; write 'Etc/GMT{'-' if shifted[1] == '+' else '+'}{int(shifted[2])}'"
    if text[:3].lower() in days:
        hint = f"; if it is a day, it comes first: {forms}"
    elif not zones:
        hint = ", nor any other on this system; install its tzdata"
    return [f"{messages[0]}{hint}"]


def owner(messages: Texts, text: str, owners: Texts) -> Texts:
    last = text.rsplit(maxsplit=1)[-1].strip("[]")
    hint = f"; did you mean {last!r}?" if last in owners else did_you_mean(text, owners)
    return [f"there is no [listen {text}] and no [route {text}]{hint}"] if hint else messages


_FILE = re.compile(r"(?:file:)?(\.{0,2}/.*[^\d/.].*|.*\.[a-z]+)")


def file_of_networks(messages: Texts, text: str) -> Texts:
    file = _FILE.fullmatch(text)
    hint = f"if it is a file of networks, write '@{file[1]}'" if file else ""
    return [with_advice("; ".join(messages), hint)]


def paths(messages: Texts, text: str) -> Texts:
    several = text.split()
    if len(several) > 1 and all("." in one.rpartition("/")[2] for one in several):
        return [f"{messages[0].partition('; ')[0]}; write '{', '.join(several)}'"]
    return messages


_LIKE_HEADER = re.compile(r"\[[A-Za-z][^\]:]*\]")
_UNBRACED = re.compile(r"\$(?!ssl_)([A-Za-z_][A-Za-z0-9_]*)")


def mended(
    entry: KeyEntry,
    item: ValueLine,
    error: InvalidValueError,
    kind: ValueKind,
    read: Callable[[str], Any],
    known: Collection[str],
) -> tuple[list[Any], Texts]:
    """Return what can be read of a line of a value, and its messages; `known` are the keys of its section."""
    text, advice = item.text, _advice(entry, item, known)
    bare, change = _bare(text)
    if bare:
        try:
            return [read(bare)], [f"{change}; write {bare}"]
        except InvalidValueError as invalid:
            # Brackets may be right, and of several words each may be wrong.
            is_better = "brackets" not in change and " " not in bare
            if is_better and invalid.messages != error.messages:
                error, advice = invalid, change
    parts = text.split()
    if kind.takes == "list" and not kind.word and len(parts) > 1:
        with suppress(InvalidValueError):
            return [*map(read, parts)], [f"has blanks and no commas; write {', '.join(parts)}"]
    comment = LIKE_COMMENT.search(text)
    if comment is None or (item.below != entry.below and like_key(item.text) in known):
        return [], [with_advice(message, advice) for message in error.messages]
    shown = text[comment.start() :].strip().replace("//", "#", 1)
    message = f"a comment needs its own line; put {shown!r} above this one"
    try:
        return [read(text[: comment.start()].strip())], [message]
    except InvalidValueError as invalid:
        return [], [message, *invalid.messages]


def further_line(
    messages: Texts, entry: KeyEntry, item: ValueLine, known: Collection[str]
) -> Texts:
    return [f"{messages[0]}; {_advice(entry, item, known) or 'remove this line'}"]


def _bare(text: str) -> tuple[str, str]:
    """Return a value without what other programs want around it or word processors put into it, and that change; empty if there is none."""
    bare, change = text.translate(PLAIN), ""
    if bare != text:
        odd = next(one for one in text if ord(one) in PLAIN)
        return bare.strip(), f"replace the {unicodedata.name(odd)}"
    bare = re.sub(r"^-\s+|\s*[;,]$", "", text)
    if bare != text:
        extra = "'-' in front" if text.startswith("-") else f"{text[-1]!r} at the end"
        change = f"remove the {extra}"
    for around, name in (("[]", "brackets"), ("''", "quotes"), ('""', "quotes")):
        if len(bare) > 1 and bare[0] + bare[-1] == around:
            bare, change = bare[1:-1].strip(), change or f"remove the {name} around the value"
    return (bare, change) if change else ("", "")


def _advice(entry: KeyEntry, item: ValueLine, known: Collection[str]) -> str:
    continues = item.below != entry.below
    variable = _UNBRACED.search(item.text)
    name = f"{{{variable[1]}}}" if variable else ""
    there = "" if entry.key == "server" else " in the 'server' of a [backend]"
    is_asked_for = entry.key in SERVER_KEYS and name in {LOCAL, *NAMES, PORT}
    hints = (
        (continues and like_key(item.text) in known, "unindent it if it is a key of its own"),
        (continues and _LIKE_HEADER.fullmatch(item.text), "unindent it if it is a header"),
        (QUOTES.search(item.text), "write plain quotes, or none"),
        ("\u2026" in item.text, "write what '\u2026' leaves out"),
        (item.text.endswith("\\"), "no backslash needed; indent the next line"),
        (LIKE_COMMENT.search(item.text), "a comment needs its own line"),
        (is_asked_for, f"for what a client asks for, write {name}{there}"),
        (variable, f"for a variable of the environment, write ${name}"),
    )
    return next((advice for applies, advice in hints if applies), "")
