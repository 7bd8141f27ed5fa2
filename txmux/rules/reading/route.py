"""The section ``[route NAME]``: which clients go to which backend, and how routes are nested."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txmux.errors import OptionError
from txmux.rules.advice.words import near_unknown, word_first
from txmux.rules.installed import MANAGED, OUTER, watchers_inside
from txmux.rules.model import (
    AllowedClient,
    CertificateCondition,
    Clients,
    NetworkSet,
    Refusal,
    Route,
    Section,
    Settings,
    TlsSettings,
)
from txmux.rules.model.client_certificate import ALTERNATIVE_NAMES, AddressPatterns, NamePatterns
from txmux.rules.model.networks import EVERY_CLIENT
from txmux.rules.model.route import MIDNIGHT, WEEK, Period
from txmux.rules.optional import missing
from txmux.rules.problems import InvalidValueError, Problem, suggestion
from txmux.rules.reading.context import NETWORKS, OUTCOME, PEM, RulesReading
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.scope import EVERY
from txmux.rules.reading.values import (
    BOOLEAN,
    LOG,
    PROTOCOLS,
    KeyFiles,
    SectionKey,
    ValueKind,
    network,
    split_words,
    with_defaults,
    words,
)
from txmux.transport import is_address
from txmux.wire.globs import Globs, names, option_globs, whole_name

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_SCHEME = "spiffe://"
_KINDS = ("cn", "ou", "san", "spiffe")
_FORM = "write for example 'cn=alice ou=ops'"


def allowed_client(text: str) -> AllowedClient:
    """Read one line of ``allow_client =``: words ``KIND=PATTERNS``, with the patterns of `txmux.wire.globs.names`."""
    by_kind: dict[str, NamePatterns] = {}
    messages = []
    for word in split_words(text):
        kind, equals, patterns = word.partition("=")
        if not equals:
            messages.append(f"{word!r} is not of the form KIND=PATTERN; {_FORM}")
        elif kind not in _KINDS:
            kinds = ", ".join(f"{one}=" for one in _KINDS)
            messages.append(f"unknown {kind!r} (possible are {kinds})")
        else:
            try:
                name, patterns = _named(kind, patterns)
                if name in by_kind:
                    what = kind if name == kind else f"{kind}={name}:"
                    messages.append(
                        f"{what!r} is given twice; put commas between the patterns, or give each a line of its own"
                    )
                else:
                    by_kind[name] = _patterns(name, patterns)
            except OptionError as error:
                messages.append(str(error))
    if messages:
        raise InvalidValueError(*messages).ask(near_unknown, (*_KINDS, *ALTERNATIVE_NAMES))
    return AllowedClient(text, by_kind)


_LATER_KIND = re.compile(rf",\s*(({'|'.join(ALTERNATIVE_NAMES)}):)", re.IGNORECASE)


def _named(kind: str, text: str) -> tuple[str, str]:
    """Return the kind of name that a word is about, of ``san=`` the one before the first colon, and the patterns."""
    if kind != "san" or text.startswith("~"):
        return "dns" if kind == "san" else kind, text
    if later := _LATER_KIND.search(text):
        raise OptionError(
            kind,
            f"{later[1]!r} stands only before the first pattern; give it a word of its own, as in 'san=a.example san=email:*@a.example'",
        )
    its, colon, patterns = text.partition(":")
    if its.lower() in ALTERNATIVE_NAMES and colon:
        return its.lower(), patterns
    # `lint` warns of other names than those of DNS.
    if colon and not patterns.startswith("//") and not is_address(text):
        kinds = ", ".join(f"{one}:" for one in ALTERNATIVE_NAMES)
        raise OptionError(kind, f"unknown kind {its!r} (possible are {kinds})")
    return "dns", text


def _patterns(kind: str, text: str) -> NamePatterns:
    option = "san" if kind in ALTERNATIVE_NAMES else kind
    for pattern in text.split(",") if not text.startswith("~") else ():
        if kind == "spiffe" and not pattern.strip().startswith(_SCHEME):
            message = f"{pattern!r} is no SPIFFE ID; write {_SCHEME}TRUST-DOMAIN/PATH"
            raise OptionError(kind, message)
        if kind == "email" and "@" not in pattern:
            raise OptionError(option, f"{pattern!r} has no '@'; write for example *@example.com")
    if kind == "ip":
        try:
            return AddressPatterns(NetworkSet([network(one.strip()) for one in text.split(",")]))
        except InvalidValueError as error:
            raise OptionError(option, str(error)) from error
    read: Callable[[str], Globs] = whole_name if kind in {"subject", "issuer"} else names
    if kind in _NORMAL:
        read = partial(names, normal=_NORMAL[kind])
    globs = option_globs({option: text}, option, read)
    assert globs is not None  # noqa: S101 - it was given
    return globs


def _normal_email(name: str) -> str:
    # RFC 5280, section 7.5: only the host part is without case.
    local, at, host = name.rpartition("@")
    return f"{local}{at}{host.lower()}"


_NORMAL = {"dns": str.lower, "email": _normal_email}


def dns_patterns(text: str) -> Iterator[str]:
    """Yield the patterns of DNS names in a line of ``allow_client`` or ``client_cert``."""
    for part in (part for word in split_words(text) for part in _COMMA.split(word)):
        name, patterns = _named(*part.partition("=")[::2])
        if name == "dns":
            yield from [patterns] if patterns.startswith("~") else patterns.split(",")


_STATES = ("any", "none", "revoked")
_NAMES = ("subject", "san", "issuer", "fingerprint")
# Several conditions may have commas between them; other commas are a part of what stands there.
_COMMA = re.compile(rf",(?=(?:{'|'.join(_NAMES)})=)")


def certificate_condition(text: str) -> CertificateCondition:
    """Read one line of ``client_cert =``: ``any``, ``none``, ``revoked``, and words ``KIND=PATTERN``."""
    parts = [one for word in split_words(text) for one in _COMMA.split(word.rstrip(","))]
    words = {part for part in parts if part in _STATES}
    patterns: list[tuple[str, NamePatterns]] = []
    messages = []
    for part in parts:
        kind, equals, pattern = part.partition("=")
        if part in _STATES:
            continue
        if not equals or kind not in _NAMES:
            possible = [*_STATES, *(f"{one}=" for one in _NAMES)]
            messages.append(f"unknown {part!r} (possible are {', '.join(possible)})")
            continue
        if kind == "fingerprint":
            pattern = _fingerprints(pattern, messages)
        try:
            name, pattern = _named(kind, pattern)
            if pattern or not messages:
                patterns.append((name, _patterns(name, pattern)))
        except OptionError as error:
            messages.append(str(error))
            continue
        words |= {"any", f"{name}={pattern}"}
    if messages:
        known = (*_STATES, *_NAMES, *ALTERNATIVE_NAMES)
        raise InvalidValueError(*messages).ask(near_unknown, known)
    if "revoked" in words:
        words.add("none")
    return CertificateCondition(frozenset(words), tuple(patterns))


def _fingerprints(text: str, messages: list[str]) -> str:
    plain = [one.strip().replace(":", "").lower() for one in text.split(",")]
    for one in plain:
        if not re.fullmatch("[0-9a-f]{64}", one):
            what = "is SHA-1" if re.fullmatch("[0-9a-f]{40}", one) else "is not 64 hex digits"
            messages.append(
                f"fingerprint: {one!r} {what}; write what 'openssl x509 -noout -fingerprint -sha256' says"
            )
            return ""
    return ",".join(plain)


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_AROUND = re.compile(r"\s*([,-])\s*")
_FORMS = "write for example 'mon-fri 08:00-18:00', '22:00-06:00 Europe/Paris' or 'sat,sun'"


def period(text: str) -> Period:
    """Read one line of ``during``: ``[DAYS] [HH:MM-HH:MM] [ZONE]``."""
    words = _AROUND.sub(r"\1", text).split()
    days, start, end, zone = WEEK, 0, MIDNIGHT, None
    if not words[0][0].isdigit():
        days = _days(words.pop(0))
    if words and words[0][0].isdigit():
        start, end = _times(words.pop(0))
    if words:
        zone = _zone(words.pop(0))
    if words:
        raise InvalidValueError(f"{words[0]!r} is one word too many; {_FORMS}")
    return Period(days, start, end, zone)


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _day(first), _day(last) if "-" in part else _day(first)
        days.update((begin + n) % 7 for n in range((end - begin) % 7 + 1))
    return frozenset(days)


def _day(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    raise InvalidValueError(f"{text!r} is not a day; {_FORMS}").ask(word_first, text, _DAYS)


def _times(text: str) -> tuple[int, int]:
    match = _TIMES.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"{text!r} is not a time from HH:MM to HH:MM; {_FORMS}")
    start, end = _minutes(match[1], match[2]), _minutes(match[3], match[4])
    if start == MIDNIGHT:
        raise InvalidValueError(f"{text!r} begins when the day is over; begin it at 00:00")
    if start == end:
        raise InvalidValueError(f"{text!r} begins when it ends; the whole day is 00:00-24:00")
    return start, end


def _minutes(hours: str, minutes: str) -> int:
    minute_of_day = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute_of_day > MIDNIGHT:
        raise InvalidValueError(f"'{hours}:{minutes}' is not a time of day; from 00:00 to 24:00")
    return minute_of_day


def _zone(text: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones  # noqa: PLC0415 - for few rules

    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zones = _zones_of(available_timezones)
        advice = (
            "write one such as Europe/Paris or UTC" if zones else "install this system's tzdata"
        )
        error = InvalidValueError(f"there is no time zone {text!r}; {advice}")
        is_offset = text[-1:].isdigit()  # which is not the zone without it
        raise error.ask(word_first, text, () if is_offset else zones) from None


@cache
def _zones_of(find: Callable[[], Collection[str]]) -> Collection[str]:
    return find()  # which reads over a thousand files


TLS_FIELDS = {
    "alpn": "alpn",
    "tls_client_ca": "client_ca",
    "tls_client_crl": "client_crl",
    "allow_client": "allow_client",
    "tls_client": "client",
    "tls_minimum": "minimum",
}
"""The attributes of `TlsSettings`, by their keys."""
_OPENING = frozenset(("terminate_tls", *OUTER))
_OF_CLIENTS = ("tls_client_crl", "allow_client", "tls_client")
_DEEPEST = 20


def _certificate(reading: RulesReading, text: str) -> Path | str:
    """Read the path of a PEM file, or behind the word of a feature a name; just the word is an empty name."""
    word, _, name = text.partition(" ")
    if why := missing(word):
        raise InvalidValueError(why)
    if MANAGED is None or word != MANAGED.word:
        return reading.pem(text)
    return MANAGED.read(name.strip())


def make_route(name: str, section: Section, found: Mapping[str, Any], settings: Settings) -> Route:
    # Stand-ins for what could not be read let the rest be checked.
    fields = {"alternatives": (), **found}
    tls = {TLS_FIELDS[key]: fields.pop(key) for key in TLS_FIELDS.keys() & fields}
    tls["may_lack"] = fields.pop("is_of_unit", False)
    tls["author"] = fields.pop("author", None)
    files = fields.pop("terminate_tls", None)
    if MANAGED is not None and files and isinstance(files[0], str):
        tls["managed"] = names = MANAGED.names(section, files)
        folder = MANAGED.folder(settings)
        files = tuple(MANAGED.file(folder, name) for name in names)
    if files:
        fields["terminate_tls"] = TlsSettings(files, **tls)
    included, excluded = fields.pop("from", None), fields.pop("not_from", None)
    clients = EVERY_CLIENT
    if included is not None or excluded is not None:
        clients = Clients(included, excluded)
    if "outcome" not in fields:
        fields["outcome"] = None if is_outer(section) else Refusal.CLOSE
    return Route(name, clients=clients, section=section, **fields)


def is_outer(section: Section) -> bool:
    written = section.entries
    if _OPENING.isdisjoint(written):  # as nearly all of thousands
        return False
    opening = [written[key] for key in OUTER if key in written]
    return "terminate_tls" in written or any(
        [item.text for item in entry.items] == ["yes"] for entry in opening
    )


def contradictions(section: Section, found: Mapping[str, Any]) -> Iterator[Problem]:
    """Find keys that would wrongly make their reader believe that TLS is ended, and names that no certificate is for."""
    if MANAGED is not None and found.get("terminate_tls") == ("",):
        yield from MANAGED.problems(section)
    silent = (line.silent_after is not None for line in found.get("alternatives", ()))
    for number, is_silent in enumerate(silent if is_outer(section) else ()):
        if is_silent:
            message = "who says nothing begins neither TLS nor a tunnel; put this line into a route of its own"
            yield section.problem(message, "match", number)
    for key in filter(section.entries.__contains__, TLS_FIELDS):
        if "terminate_tls" not in section.entries:
            message = "does nothing without 'terminate_tls'; add that, or remove this"
            yield section.problem(message, key)
        elif key in _OF_CLIENTS and "tls_client_ca" not in section.entries:
            message = "does nothing without 'tls_client_ca', since clients are not asked for a certificate; add that, or remove this"
            yield section.problem(message, key)


def managed_claims(section: Section) -> Iterator[str]:
    """Yield what a section claims by the names that ``terminate_tls`` asks certificates for, as far as it can be read."""
    texts = (item.text for item in section.items("terminate_tls"))
    words = [word for text in texts for word in re.split(r"[,\s]+", text) if word]
    if MANAGED is not None and words[:1] == [MANAGED.word]:
        with suppress(InvalidValueError):
            names = tuple(MANAGED.read(word) for word in words if word != MANAGED.word)
            yield from (_claim(name) for name in MANAGED.names(section, names or ("",)))


def _claim(name: str) -> str:
    return f"certificate {name}"  # no address, nor `INSIDE`


def managed_names(
    routes: Sequence[Route], settings: Settings, precedence: Callable[[Section, str], int]
) -> Iterator[Problem]:
    """Find names that certificates are asked for by routes of several authors, or differently: the later one is wrong."""
    if MANAGED is None:
        return
    order = MANAGED.order(settings, routes)
    asking: dict[str, list[tuple[Route, int | None]]] = {}
    for route, tls in [(its, its.terminate_tls) for its in routes if its.terminate_tls]:
        for name in tls.managed:
            asking.setdefault(name, []).append((route, tls.author))
    for name, its in asking.items():
        if len(its) == 1:  # as nearly all: then what is in force is not read
            continue
        ranks = [precedence(claimant.section, _claim(name)) for claimant, _ in its]
        (_, (first, holding)), *others = sorted(zip(ranks, its, strict=True), key=itemgetter(0))
        holder = first.section
        for _, (other, author) in others:
            if author not in {None, holding}:
                why = f"{name!r} is a name of [{holder.header}], which has another owner; remove it"
            elif order(first) != order(other):
                why = f"[{holder.header}] asks for {name} by another 'acme' or 'acme_profile'; write the same in both"
            else:
                continue
            problem = other.section.problem(why, "terminate_tls")
            yield problem.lost_to(holder.path, holder.line)


def nestings(routes: Sequence[Route]) -> Iterator[Problem]:
    """Find routes that are under themselves, at once or over others, or under very many: one problem a circle, at its first route."""
    sections = {route.name: route.section for route in reversed(routes)}
    under = {r.name: r.under for r in routes if is_outer(sections[r.name])}
    left, places = {**under}, {name: place for place, name in enumerate(under)}
    for _ in range(_DEEPEST):
        for name in [one for one, its in left.items() if left.keys().isdisjoint(its)]:
            del left[name]
    # From each that is left, the way up ends at one that is too deep, or is a circle.
    above = {name: next(filter(left.__contains__, its), "") for name, its in left.items()}
    seen: set[str] = set()
    for name in left:
        way, at = list[str](), name
        while at and at not in seen:
            seen.add(at)
            way.append(at)
            at = above[at]
        if not above[name]:
            message = f"is too deep: over {_DEEPEST} routes, each under another; remove some"
            yield sections[name].problem(message, "under")
        elif at in way:
            circle = way[way.index(at) :]
            first = min(circle, key=places.__getitem__)
            turn = circle.index(first)
            names = " -> ".join((*circle[turn:], *circle[:turn], first))
            what = f"is under itself: {names}" if circle[1:] else "is under itself"
            message, key = f"{what}; put it under a listener, or leave 'under' out", "under"
            if key not in sections[first].entries:  # it is the only listener of its unit
                message, key = (
                    f"[listen {first}] has this name, too; give one of the two another name",
                    "",
                )
            yield sections[first].problem(message, key)


def _under(reading: RulesReading, text: str) -> str:
    reading.needs.append((_checked_under, text, text))
    return _checked_under(reading, text)


def _checked_under(reading: RulesReading, text: str) -> str:
    listeners, routes = reading.sections["listen"], reading.sections["route"]
    outer = [*filter(is_outer, routes.get(text, ()))]
    is_own_route = any(map(reading.is_own, outer))  # also one whose name another unit has
    if text in listeners and is_own_route and reading.is_own(listeners[text][0]):
        message = f"{text!r} is a listener, and a route that ends TLS or opens tunnels, too; give one of the two another name"
        raise InvalidValueError(message)
    if is_own_route or reading.alone or text == EVERY:
        return text
    if text in listeners:
        reading.scope.refuse_listener(reading.unit, text)
        return text
    if outer or (text in routes and not any(map(reading.is_own, routes[text]))):
        raise InvalidValueError(f"[route {text}] has another owner; name one of yours")
    if text in routes:
        message = f"[route {text}] does not terminate TLS, so no route can be under it; add 'terminate_tls' there, or name a listener"
        raise InvalidValueError(message)
    error = InvalidValueError(f"there is no [listen {text}] and no [route {text}]")
    raise error.ask(_with_owners, text, reading)


def _with_owners(messages: Sequence[str], text: str, reading: RulesReading) -> Sequence[str]:
    routes = reading.sections["route"].items()
    over = [name for name, same in routes if is_outer(same[0]) and reading.is_own(same[0])]
    owners = dict.fromkeys((*reading.scope.usable(reading.unit), *over))
    return [f"{message}{suggestion(text, owners)}" for message in messages]


_MATCH = ValueKind(
    lambda reading, text: read_alternative(text, reading.matchers, reading.sections["listen"]),
    "one a line",
    "lines",
    in_context=True,
)
_DURING = ValueKind(period, "one a line", "lines")
_CERTIFICATES = ValueKind(
    _certificate,
    f"{'' if MANAGED is None else f'`{MANAGED.word}`, `{MANAGED.word}` and a list of names, or '}a list of paths",
    "list",
    in_context=True,
    word="" if MANAGED is None else MANAGED.word,
    paths=lambda tls: tls.files,
)
_ALLOW_CLIENT = ValueKind(allowed_client, "one a line", "lines")
_CLIENT_CERT = ValueKind(
    certificate_condition, "one a line", "lines", collect=CertificateCondition.of
)
_TLS_CLIENT = words("required", "optional")
_UNDER = ValueKind(_under, "list of names", "list", in_context=True)

# fmt: off
KEYS: Mapping[str, SectionKey] = with_defaults(Route("", (), None), {
    "match": SectionKey(_MATCH, example="ssh", field="alternatives", required=True, meaning=
        "the client has to send [what a line says](#match); one that matches is enough"),
    "backend": SectionKey(OUTCOME, example="127.0.0.1:22", field="outcome", required=True, unless="terminate_tls tunnel", meaning=
        "the client goes here. Not required with `terminate_tls` and `tunnel`"),
    "from": SectionKey(NETWORKS, example="10.0.0.0/8", meaning=
        "if given, the route serves only clients from these networks"),
    "not_from": SectionKey(NETWORKS, example="10.0.0.0/8", meaning=
        "the route does not serve clients from these networks, even if `from` names them"),
    "during": SectionKey(_DURING, example="mon-fri 08:00-18:00", meaning=
        "if given, the route serves clients only at [these times](#during)"),
    "under": SectionKey(_UNDER, example="public", meaning=
        "the route is only for these listeners, and inside these routes that terminate TLS or open tunnels, up to 20 deep; `*` means [all listeners](#scope). Required with several listeners"),
    "terminate_tls": SectionKey(_CERTIFICATES, example="cert.pem, key.pem", files=KeyFiles("sent", is_secret=True), loads=lambda _: ("txmux.client.tls.store", "txmux.client.tls.terminator"), meaning=
        f"txmux [terminates TLS](#tls-termination) with the certificates and keys of these PEM files{'' if MANAGED is None else f', or of {MANAGED.meaning}'}, and the routes `under` this one decide on the plaintext"),
    "alpn": SectionKey(PROTOCOLS, example="h2, http/1.1", loads=lambda names: [one.partition(":")[0] for one in watchers_inside(names)], meaning=
        "`terminate_tls` may negotiate these protocols, in order of preference"),
    "tls_client_ca": SectionKey(PEM, example="clients-ca.pem", files=KeyFiles("sent"), meaning=
        "`terminate_tls` asks clients for a certificate of one of the authorities in this PEM file"),
    "tls_client": SectionKey(_TLS_CLIENT, default="required", example="optional", meaning=
        "clients without a valid certificate are turned away, or left to [`client_cert`](#client_cert)"),
    "tls_client_crl": SectionKey(PEM, example="clients-crl.pem", files=KeyFiles("sent"), meaning=
        "this PEM file has the [revocation list](#allow_client) of each of these authorities"),
    "allow_client": SectionKey(_ALLOW_CLIENT, example="cn=alice ou=ops", meaning=
        "these certificates are [let in, by their names](#allow_client)"),
    "tls_minimum": SectionKey(words("1.2", "1.3"), default="1.2", example="1.3", meaning=
        "`terminate_tls` accepts no older version of TLS"),
    "client_cert": SectionKey(_CLIENT_CERT, example="san=*.staff.example.com", meaning=
        "under a route with `tls_client_ca`: the route serves only clients with [such a certificate](#client_cert), or without one"),
    "log": SectionKey(LOG, meaning=
        "as for a listener; if the two differ, the one with fewer lines counts"),
    "dry_run": SectionKey(BOOLEAN, meaning=
        "the route decides and delays nothing: the fact `dry_run` names it where it would have matched first, and at each reload and the stop, the service's log has their number since the last"),
})
# fmt: on
"""The keys of ``[route NAME]``."""
