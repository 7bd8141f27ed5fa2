"""Certificates by ACME (RFC 8555), which are renewed in time: ``terminate_tls = acme``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from txmux.features.acme.reading import (
    FOLDER,
    WORDS,
    AcmeSettings,
    acme_file,
    conflicts,
    in_common,
    names_of,
    problems_of_names,
    read_authority,
    read_directory,
    read_email,
    read_name,
)
from txmux.rules.feature import Feature, ManagedCertificates
from txmux.rules.model import Rules
from txmux.rules.optional import imported_late, named
from txmux.rules.problems import Problem
from txmux.rules.reading.context import PATH, PEM, SECRET
from txmux.rules.reading.values import BOOLEAN, KeyFiles, SectionKey, ValueKind, of_form

if TYPE_CHECKING:
    from txmux.client.parts import ServiceContext, ServicePart

_STORE = "shared_limits"
_OWN = ValueKind(read_authority, f"{WORDS}, or a URL")
_ACME = ValueKind(read_directory, f"{WORDS}, a URL, or `off`")
_EMAIL = ValueKind(read_email, "an address")
_PROFILE = ValueKind(
    of_form(r"[A-Za-z0-9._-]{1,100}", "is not the name of a profile; write for example shortlived"),
    "a name",
)
_CA = SectionKey(PEM, example="pebble-root.pem", files=KeyFiles("supervisor"), meaning=
    "this PEM file has the root of a private authority's own certificate, instead of those of the system or `SSL_CERT_FILE` in the environment")  # fmt: skip
_EAB = SectionKey(SECRET, example="/etc/txmux/secrets/zerossl.eab", files=KeyFiles("supervisor", is_secret=True, reader="txmux.features.acme.authority:read_eab"), meaning=
    "this file has, in one line, the key ID and HMAC key that an authority gives for accounts (External Account Binding)")  # fmt: skip

# What few rules need is imported where they do: OpenSSL takes a while.


def _part(context: ServiceContext) -> ServicePart:
    from txmux.features.acme.renewal import Certificates  # noqa: PLC0415 - as above

    return Certificates(
        context.reactor, lambda challenges: context.send("acme", {"challenges": challenges})
    )


def _unusable(rules: Rules) -> Iterable[Problem]:
    if not rules.managed:
        return ()
    from txmux.features.acme.folder import unusable  # noqa: PLC0415 - as above

    return unusable(rules)


def _open_secrets(rules: Rules) -> Iterator[Problem]:
    store = rules.settings.more.get(_STORE)
    if store is not None and store.password is None and rules.managed:
        message = "anyone who can read this Redis can read the keys of ACME certificates, and anyone who can write to it can get certificates for their names; set a password in Redis, and add password=FILE after the address"
        yield rules.settings.section.problem(message, _STORE)


# fmt: off
FEATURE = Feature(
    "acme",
    keys={"txmux": {
        "acme": SectionKey(_ACME, default="off", example="letsencrypt", loads=lambda _: ("txmux.features.acme.challenges",), meaning=
            "this authority issues the certificates of [`terminate_tls = acme`](#certificates-by-acme); a URL is that of its ACME directory"),
        "acme_profile": SectionKey(_PROFILE, example="shortlived", usual="", meaning=
            "certificates are of this kind, one of the authority's"),
        "acme_eab": _EAB,
        "acme_email": SectionKey(_EMAIL, example="ops@example.com", meaning=
            "the authority may write to this address"),
        "acme_folder": SectionKey(PATH, default=str(FOLDER), example=str(FOLDER), usual=FOLDER, files=KeyFiles("supervisor", is_secret=True), shapes_others=True, meaning=
            "this folder, made with mode 0700, has the account's key, and certificates with keys"),
        "acme_ca": _CA,
        "acme_terms": SectionKey(BOOLEAN, default="no", example="no", usual=False, meaning=
            "with `yes`, you agree to the authorities' terms of service"),
    }, "route": {
        "acme": SectionKey(_OWN, example="zerossl", meaning=
            "this authority issues the route's certificates; `acme_profile`, `acme_eab` and `acme_ca` of `[txmux]` are only for the one there"),
        "acme_profile": SectionKey(_PROFILE, example="shortlived", usual="", meaning="as in `[txmux]`"),
        "acme_eab": attrs.evolve(_EAB, meaning=
            "as in `[txmux]`; one route with the authority is enough. In a file of a user other than root and you, it is for an account of its own"),
        "acme_ca": attrs.evolve(_CA, meaning="as `acme_eab`"),
    }},
    hints={"route": dict.fromkeys(
        ("cert_resolver", "certresolver", "letsencrypt"), "write terminate_tls with the word acme; 'acme' in [txmux] or here names the authority")},
    conflicts=(conflicts,),
    certificates=ManagedCertificates(
        "acme", "[`acme`](#certificates-by-acme)", "acme_folder", read_name, names_of, problems_of_names,
        folder=lambda settings: AcmeSettings.of(settings).folder, file=acme_file,
        order=in_common),
    needed=lambda rules: bool(rules.managed),
    part=_part,
    serving_part=imported_late("txmux.features.acme.challenges:Challenges"),
    rows=lambda: named("txmux.features.acme.rows:ROWS"),
    sources=("acme", "certificates"),
    finds={"start": (_unusable,), "secrets": (_open_secrets,)},
)
# fmt: on
