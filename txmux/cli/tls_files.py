"""Unusable files for TLS and expiring certificates, with the lines that name them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.client.tls.client_certificates import ClientVerification
from txmux.client.tls.contexts import Contexts
from txmux.client.tls.ech import KeyFile, read_key_files
from txmux.client.tls.terminations import expiry_warnings
from txmux.detection.explain import explain
from txmux.net.tls.errors import CLIENT_CERTIFICATE, TLSFileError
from txmux.net.tls.pem import read_authorities, read_identity
from txmux.rules.model import Listener, Refusal, Rules, Section, TlsEnd
from txmux.rules.problems import Problem
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    _Certificates = Iterable[tuple[str, float]]


def unusable_files(rules: Rules) -> tuple[list[Problem], list[Problem]]:
    """Read all files for TLS; return errors, and warnings of files that only this process may not read and of expiring certificates."""
    wrong: list[Problem] = []
    doubtful: list[Problem] = []
    for section, key, number, read in _readers(rules):
        try:
            doubtful += expiry_warnings(section, key, read(), number)
        except TLSFileError as error:  # noqa: PERF203 - all errors are reported
            problem = section.problem(str(error), error.key, number)
            (doubtful if error.forbidden else wrong).append(problem)
    for listener in rules.listeners:
        if listener.ech_keys is None:
            continue
        try:
            keys = read_key_files(listener.ech_keys)
        except TLSFileError as error:
            problem = listener.section.problem(str(error), error.key)
            (doubtful if error.forbidden else wrong).append(problem)
        else:
            doubtful += _unrouted_names(rules, listener, keys)
            doubtful += _covered_keys(listener, keys)
    return wrong, doubtful


def _unrouted_names(
    rules: Rules, listener: Listener, files: Iterable[KeyFile]
) -> Iterator[Problem]:
    """Find public names that no route takes."""
    routes = rules.routes_over(listener, listener.transport)
    names = dict.fromkeys(key.config.public_name for file in files for key in file.keys)
    for name in names if isinstance(listener.default, Refusal) else ():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if explain(routes, outgoing.read(), now=time.time()).decision.route is None:
            message = f"no route takes the public name {name!r}, to which clients come whose hello does not open; add one with 'match = tls sni={name}'"
            yield listener.section.problem(message, "ech_keys")


def _covered_keys(listener: Listener, files: Iterable[KeyFile]) -> Iterator[Problem]:
    """Find keys that open nothing, since a newer one has their number, by which a hello finds its key."""
    newest: dict[int, KeyFile] = {}
    for file in files:
        for number in {key.config.id for key in file.keys}:
            other = newest.setdefault(number, file)
            if other is not file:
                message = f"'{file.path}' opens nothing, since the newer '{other.path}' has the same number, {number}; make a key with another one by 'txmux ech new'"
                yield listener.section.problem(message, "ech_keys")


def _readers(
    rules: Rules,
) -> Iterator[tuple[Section, str, int | None, Callable[[], _Certificates]]]:
    settings = rules.settings
    if settings.acme_ca is not None:
        read_ca = partial(_of_authorities, settings.acme_ca, "acme_ca")
        yield settings.section, "acme_ca", None, read_ca
    for route in rules.routes:
        if route.terminate_tls is not None:
            yield route.section, "terminate_tls", None, partial(_of_end, route.terminate_tls)
    for backend in rules.backends.values():
        tls = backend.tls
        if tls is not None and tls.ca is not None:
            yield backend.section, "tls_ca", None, partial(_of_authorities, tls.ca, "tls_ca")
        if tls is not None and tls.certificate:
            read = partial(_of_identity, tls.certificate, CLIENT_CERTIFICATE)
            yield backend.section, CLIENT_CERTIFICATE, None, read
    for listener in rules.listeners:
        for number, text in enumerate(listener.endpoints):
            if text.lower().startswith("ssl:"):
                yield listener.section, "endpoint", number, partial(_of_endpoint, text)


def _of_end(end: TlsEnd) -> _Certificates:
    if not end.acme:
        return Contexts(end).valid_until
    if end.client_ca is not None:
        ClientVerification(end)
    return ()  # certificates by ACME are made at the start


def _of_authorities(path: Path, key: str) -> _Certificates:
    # An expired authority matters only to servers whose certificate it signed.
    read_authorities(path, key)
    return ()


def _of_identity(paths: Iterable[Path], key: str) -> _Certificates:
    return [read_identity(paths, key).valid_until]


def _of_endpoint(text: str) -> _Certificates:
    given = SERVER["ssl"].check(split_arguments(text))
    key = given.get("privateKey", "server.pem")
    return _of_identity(map(Path, dict.fromkeys((given.get("certKey", key), key))), "endpoint")
