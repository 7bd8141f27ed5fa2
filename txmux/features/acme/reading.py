"""Reads what rules say of certificates by ACME."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from txmux.classes import frozen
from txmux.errors import joined
from txmux.rules.advice.words import word_first
from txmux.rules.model import Listener, Route, Section, Settings
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.values import words_if_right

FOLDER = Path("/var/lib/txmux/acme")

_KNOWN = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "zerossl": "https://acme.zerossl.com/v2/DV90",
    "google": "https://dv.acme-v02.api.pki.goog/directory",
    "google-staging": "https://dv.acme-v02.test-api.pki.goog/directory",
}
_WORDS = {directory: word for word, directory in _KNOWN.items()}
WORDS = ", ".join(f"`{word}`" for word in _KNOWN)
NEEDS_EAB = "gives certificates only to customers; write the key ID and the HMAC key that it shows them into a file, and name it as 'acme_eab'"
_NO_AUTHORITY = "needs 'acme' in [txmux]; add for example 'acme = letsencrypt' in [txmux] with 'acme_terms = yes' if you agree to its terms"


@frozen
class _PublicAuthority:
    name: str
    terms: str
    asks_for_eab: bool = True


_PUBLIC = {
    "letsencrypt": _PublicAuthority(
        "Let's Encrypt", "https://letsencrypt.org/repository/", asks_for_eab=False
    ),
    "zerossl": _PublicAuthority("ZeroSSL", "https://zerossl.com/terms/"),
    "google": _PublicAuthority("Google Trust Services", "https://pki.goog/repository/"),
}
"""By the beginnings of the words."""
_OF_ACCOUNT = ("acme_eab", "acme_ca")
_OF_ROUTE = ("acme", "acme_profile", *_OF_ACCOUNT)
_MANAGED = "terminate_tls"
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
_NO_PATTERN = (
    "no authority checks a pattern by TLS-ALPN-01: name its names, as in 'terminate_tls = acme www.example.com,example.com', "
    "or get a certificate by DNS-01 with another client, and write its files here"
)
_LONGEST_NAME = 246  # of a file: 255 with what is added while it is written


@frozen
class AcmeSettings:
    """What rules say of the authority of a certificate: an attribute is the key of its name, behind ``acme_``.

    Attributes:
        directory: ``acme``: the URL of the authority's directory (RFC 8555, section 7.1.1).
        user: Who has files of an account of its own, neither root nor the operator.
    """

    directory: str | None = None
    email: str | None = None
    folder: Path = FOLDER
    ca: Path | None = None
    terms: bool = False
    eab: Path | None = None
    profile: str = ""
    user: int | None = None

    @classmethod
    def of(
        cls, settings: Settings, route: Route | None = None, apart: Collection[object] = ()
    ) -> AcmeSettings:
        """Return what holds for a route, or for all others; another authority, or account, has nothing of the usual one's. `apart` is from `users_apart`."""
        more = settings.more
        own = {} if route is None else route.more
        tls = None if route is None else route.terminate_tls
        directory = own.get("acme", more.get("acme"))
        user = tls.author if tls and (tls.author, directory) in apart else None
        if directory != more.get("acme"):
            more = {name: value for name, value in more.items() if name not in _OF_ROUTE}
        elif user is not None:
            more = {name: value for name, value in more.items() if name not in _OF_ACCOUNT}
        more = {**more, **own}
        names = (field.name for field in attrs.fields(cls))
        given = {name: more[f"acme_{name}"] for name in names if f"acme_{name}" in more}
        return cls(more.get("acme"), **given, user=user)

    @property
    def account(self) -> str:
        """What distinguishes accounts; a directory has no blank."""
        return f"{self.directory}{'' if self.user is None else f' of user {self.user}'}"

    @property
    def order(self) -> str:
        # Once the authority or the profile changes, the certificate is ordered anew.
        return f"{self.directory} {self.profile}".strip()

    @property
    def authority(self) -> str:
        return _WORDS.get(self.directory or "", self.directory or "")


def users_apart(settings: Settings, routes: Iterable[Route]) -> set[object]:
    """Return the users who name files for an account with an authority, each with that; one route of them is enough."""
    return {
        (tls.author, route.more.get("acme", settings.more.get("acme")))
        for route, tls in [(its, its.terminate_tls) for its in routes if its.terminate_tls]
        if not route.more.keys().isdisjoint(_OF_ACCOUNT)
    }


def in_common(settings: Settings, routes: Iterable[Route]) -> Callable[[Route], tuple[str, str]]:
    """Return what has to be the same for all routes with one name, of each."""
    apart = users_apart(settings, routes)

    def of(route: Route) -> tuple[str, str]:
        its = AcmeSettings.of(settings, route, apart)
        return its.account, its.order

    return of


def asked_for(settings: Settings, routes: Sequence[Route]) -> dict[str, AcmeSettings]:
    """Return by name what holds for its certificate."""
    apart = users_apart(settings, routes)
    found: dict[str, AcmeSettings] = {}
    for route in routes:
        for name in route.terminate_tls.managed if route.terminate_tls else ():
            one = AcmeSettings.of(settings, route, apart)
            first = found.get(name, one)
            found[name] = attrs.evolve(one, ca=first.ca or one.ca, eab=first.eab or one.eab)
    return found


def accounts(requested: Iterable[AcmeSettings]) -> dict[str, AcmeSettings]:
    """Return what holds for each account: there is one with an authority, though several routes may name it."""
    found: dict[str, AcmeSettings] = {}
    for one in requested:
        if one.directory is not None:
            first = found.get(one.account, one)
            ca, eab = first.ca or one.ca, first.eab or one.eab
            found[one.account] = attrs.evolve(first, ca=ca, eab=eab, profile="")
    return found


def read_directory(text: str) -> str | None:
    return None if text == "off" else read_authority(text)


def read_authority(text: str) -> str:
    if text in _KNOWN:
        return _KNOWN[text]
    with suppress(ValueError):
        parts = urlsplit(text)
        is_word = re.search(r"\s", text) is None
        if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and is_word:
            return text
    advice = f"write {joined([*_KNOWN])}, or its URL, which begins with https://"
    error = InvalidValueError(f"{text!r} is not an ACME directory; {advice}")
    raise error.ask(word_first, text, _KNOWN)


def read_email(text: str) -> str:
    if not re.fullmatch(r"[^@\s,<>:]+@[^@\s,<>:]+", text):
        raise InvalidValueError(f"{text!r} is not an address; write for example ops@example.com")
    return text


def conflicts(
    _: Sequence[Listener], routes: Sequence[Route], settings: Settings, __: Mapping[int, str]
) -> Iterator[Problem]:
    """Find what does not go together in all that rules say of authorities and names."""
    section, apart = settings.section, users_apart(settings, routes)
    requested = [(section, AcmeSettings.of(settings))]
    own = [route for route in routes if not route.more.keys().isdisjoint(_OF_ROUTE)]
    if "acme" not in section.entries and not own:
        for key in ("acme_email", "acme_terms", *_OF_ROUTE[1:]):
            if key in section.entries and settings.more.get(key, True):
                yield section.problem("does nothing without 'acme'; add that, or remove this", key)
    for route in own:
        if [item.text.split()[:1] for item in route.section.items(_MANAGED)][:1] != [["acme"]]:
            key = next(key for key in _OF_ROUTE if key in route.more)
            message = "does nothing without 'terminate_tls = acme'; add that, or remove this"
            yield route.section.problem(message, key)
    for route in routes:
        if route.terminate_tls is None or not route.terminate_tls.managed:
            continue
        its = AcmeSettings.of(settings, route, apart)
        requested.append((route.section, its))
        problems = [] if its.directory else [_NO_AUTHORITY]
        for name in route.terminate_tls.managed:
            problems += _wrong_address(name, its, route.section)
        yield from (route.section.problem(problem, _MANAGED) for problem in problems)
    yield from _wrong_accounts(requested)


def _wrong_accounts(requested: Sequence[tuple[Section, AcmeSettings]]) -> Iterator[Problem]:
    of_all = accounts(its for _, its in requested)
    # Of a file that cannot be read, too, which is a problem of its own.
    name_eab = {its.account for section, its in requested if "acme_eab" in section.entries}
    for section, its in requested:
        account = of_all.get(its.account, its)
        for key, value, first in (("ca", its.ca, account.ca), ("eab", its.eab, account.eab)):
            if value != first and f"acme_{key}" in section.entries:
                message = f"another section has '{first}' for this authority, with which there is one account; write the same in both"
                yield section.problem(message, f"acme_{key}")
        known = _PUBLIC.get(its.authority.partition("-")[0])
        if known is None or "acme" not in section.entries:
            continue
        if not its.terms:
            message = f"{known.name} has terms of service: {known.terms}; read them, and add 'acme_terms = yes'"
            yield section.problem(message, "acme")
        if known.asks_for_eab and its.account not in name_eab:
            yield section.problem(f"{known.name} {NEEDS_EAB}", "acme")


def _wrong_address(name: str, its: AcmeSettings, section: Section) -> Iterator[str]:
    """Yield why an authority gives no certificate for a name, or no client sees it, if that is an address."""
    address, word, lines = address_of(name), its.authority, section.items("match")
    if address is None:
        return
    by_name = {number for number, _ in _asked_names(section)}
    if not any(item.text.startswith("not ") for item in lines) and len(by_name) == len(lines):
        yield f"clients ask for no address by SNI, so none of this route's sees the certificate of {name}; write it in another route with 'match = tls'"
    if word in _KNOWN and not address.is_global:
        yield f"{name} is no public address, so {word} cannot connect to it; name an authority of your own as 'acme', or PEM files"
    elif word.startswith("letsencrypt") and its.profile != "shortlived":
        yield f"{word} gives certificates for addresses only by its profile of six days; add 'acme_profile = shortlived'"


def read_name(text: str) -> str:
    # An empty text stands for the names of ``match``.
    return _host(text) if text else ""


def names_of(section: Section, files: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a route that names these, each once."""
    asked = [
        name for _, name in _asked_names(section) if not (_is_pattern(name) or address_of(name))
    ]
    named = files if files != ("",) else [name.lower().removesuffix(".") for name in asked]
    return tuple(dict.fromkeys(named))


def acme_file(folder: Path, name: str) -> Path:
    if len(name) > _LONGEST_NAME:
        name = f"{name[:200]}+{sha256(name.encode()).hexdigest()[:16]}"
    return folder / f"{name}.pem"


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a certificate is for (RFC 8738); ``None`` for the name of a host."""
    with suppress(ValueError):
        return ip_address(name)
    return None


def _host(text: str) -> str:
    name = text.lower().removesuffix(".")
    address = address_of(name)
    if address is not None and "%" not in name:
        return str(address)
    if _is_pattern(text):
        raise InvalidValueError(f"{text!r} is a pattern: {_NO_PATTERN}")
    if not _HOST.fullmatch(name):
        message = f"{text!r} is neither the name of a host nor an address; write for example www.example.com"
        raise InvalidValueError(message)
    return name


def _is_pattern(text: str) -> bool:
    return text.startswith(("~", ".")) or not {"*", "?"}.isdisjoint(text)


def _asked_names(section: Section) -> Iterator[tuple[int, str]]:
    """Yield the names of ``sni=``, each with the number of its line."""
    for number, item in enumerate(section.items("match")):
        for word in words_if_right(item.text):
            option, _, given = word.partition("=")
            if option == "sni":
                names = [given] if given.startswith("~") else given.split(",")
                yield from ((number, name.strip()) for name in names)


def problems_of_names(section: Section) -> Iterator[Problem]:
    """Find what keeps ``terminate_tls = acme`` from taking its names of the ``match`` lines."""
    asked = [*_asked_names(section)]
    if not asked:
        message = "takes its names of 'sni=' in 'match', which has none; write 'match = tls sni=www.example.com', or 'terminate_tls = acme www.example.com'"
        yield section.problem(message, _MANAGED)
    for number, name in asked:
        try:
            if address_of(name) is not None:
                raise InvalidValueError(  # noqa: TRY301 - as those
                    f"clients ask for no address by SNI; write 'match = tls' and 'terminate_tls = acme {name}'"
                )
            _host(name)
        except InvalidValueError as error:
            yield section.problem(f"terminate_tls = acme: {error}", "match", number)
