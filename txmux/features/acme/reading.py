"""Reads what rules say of certificates by ACME."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from txmux.errors import joined
from txmux.rules.model import Section, Settings
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.values import words_if_right

FOLDER = Path("/var/lib/txmux/acme")

_LETS_ENCRYPT = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
_TERMS = "https://letsencrypt.org/repository/"
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
_NO_PATTERN = (
    "no authority checks a pattern by TLS-ALPN-01: name its names, as in 'terminate_tls = acme www.example.com,example.com', "
    "or get a certificate by DNS-01 with another client, and write its files here"
)
_LONGEST_NAME = 246  # of a file: 255 with what is added while it is written


@attrs.frozen
class AcmeSettings:
    """What ``[txmux]`` says of it: an attribute is the key of its name, behind ``acme_``.

    Attributes:
        directory: ``acme``: the URL of the authority's directory (RFC 8555, section 7.1.1).
    """

    directory: str | None = None
    email: str | None = None
    folder: Path = FOLDER
    ca: Path | None = None
    terms: bool = False

    @classmethod
    def of(cls, settings: Settings) -> AcmeSettings:
        more = settings.more
        names = (field.name for field in attrs.fields(cls))
        given = {name: more[f"acme_{name}"] for name in names if f"acme_{name}" in more}
        return cls(more.get("acme"), **given)


def read_directory(text: str) -> str | None:
    """Read the URL of an authority's directory, or a word for one; ``off`` is ``None``."""
    if text == "off":
        return None
    if text in _LETS_ENCRYPT:
        return _LETS_ENCRYPT[text]
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc:
            return text
    advice = f"write {joined([*_LETS_ENCRYPT])}, or its URL, which begins with https://"
    error = InvalidValueError(f"{text!r} is not an ACME directory; {advice}")
    raise error.ask("words:word_first", text, _LETS_ENCRYPT)


def read_email(text: str) -> str:
    if not re.fullmatch(r"[^@\s,<>:]+@[^@\s,<>:]+", text):
        raise InvalidValueError(f"{text!r} is not an address; write for example ops@example.com")
    return text


def contradictions(section: Section, found: Mapping[str, Any]) -> Iterator[Problem]:
    """Find values of ``[txmux]`` that are right by themselves, but not together."""
    more = found.get("more", {})
    if more.get("acme") in _LETS_ENCRYPT.values() and not more.get("acme_terms"):
        message = (
            f"Let's Encrypt has terms of service: {_TERMS}; read them, and add 'acme_terms = yes'"
        )
        yield section.problem(message, "acme")
    for key in ("acme_email", "acme_ca", "acme_terms"):
        if key in section.entries and more.get(key, True) and "acme" not in section.entries:
            yield section.problem("does nothing without 'acme'; add that, or remove this", key)


def read_name(settings: Settings, text: str) -> str:
    """Read a name behind ``terminate_tls = acme``; an empty text stands for those of ``match``."""
    if settings.more.get("acme") is None:
        raise InvalidValueError(
            "needs 'acme' in [txmux]; add for example 'acme = letsencrypt' in [txmux] with 'acme_terms = yes' if you agree to its terms"
        )
    return _host(text) if text else ""


def names_of(section: Section, files: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a route that names these, each once."""
    asked = [name for _, name in _asked_names(section) if not _is_pattern(name)]
    named = files if files != ("",) else [name.lower().removesuffix(".") for name in asked]
    return tuple(dict.fromkeys(named))


def acme_file(folder: Path, name: str) -> Path:
    if len(name) > _LONGEST_NAME:
        name = f"{name[:200]}-{sha256(name.encode()).hexdigest()[:16]}"
    return folder / f"{name}.pem"


def _host(text: str) -> str:
    name = text.lower().removesuffix(".")
    if _is_pattern(text):
        raise InvalidValueError(f"{text!r} is a pattern: {_NO_PATTERN}")
    if not _HOST.fullmatch(name):
        raise InvalidValueError(
            f"{text!r} is not the name of a host; write for example www.example.com"
        )
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
        yield section.problem(message, "terminate_tls")
    for number, name in asked:
        try:
            _host(name)
        except InvalidValueError as error:  # noqa: PERF203 - all errors are reported
            yield section.problem(f"terminate_tls = acme: {error}", "match", number)
