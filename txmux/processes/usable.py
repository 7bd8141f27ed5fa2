"""Whether a service can serve rules with the files that are there: each is read by the reader of what serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from txmux.access.lists.current import Lists
from txmux.admin.listen_addresses import stored_token
from txmux.backends.connect.via import PasswordFileError, read_password
from txmux.client.tls.terminations import expiry_warnings
from txmux.errors import MuxError
from txmux.files import read_list
from txmux.net.tls.errors import CLIENT_CERTIFICATE, TLSFileError
from txmux.rules.lint.privileges import obstacles
from txmux.rules.model import Rules, Section, ServerTLS, TlsEnd, Via
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.endpoints import files_of
from txmux.rules.reading.endpointstrings import SERVER
from txmux.rules.reading.service import is_by_tcp
from txmux.rules.reading.tokens import LARGEST_TOKENS, OWN, AdminToken, read_tokens
from txmux.telemetry.access_log import AccessLogError, open_log

_Reader: TypeAlias = tuple[Section, str, "int | None", Callable[[], Any]]
_MOST_LINES = 10
"""Problems of one file of tokens that are listed."""


def unusable(rules: Rules) -> list[Problem]:
    """Return what keeps a service from starting with these rules, by its files.

    Warnings are about files that only this process may not read, that a start replaces, and about certificates that end.
    """
    problems = [*_files(rules), *obstacles(rules), *_access_log(rules), *_tokens(rules)]
    if rules.acme_names:
        from txmux.serving.acme.folder import unusable_folder  # noqa: PLC0415 - OpenSSL takes a while

        problems += unusable_folder(rules)
    try:
        Lists().hold(rules)
    except RulesError as error:
        problems += error.problems
    return problems


def _files(rules: Rules) -> Iterator[Problem]:
    """Read all files for TLS, and the passwords of proxies."""
    for section, key, number, read in _readers(rules):
        try:
            yield from expiry_warnings(section, key, read() or (), number)
        except (TLSFileError, PasswordFileError) as error:  # noqa: PERF203 - all errors are reported
            problem = section.problem(str(error), error.key, number)
            yield attrs.evolve(problem, warning=error.forbidden)


def _readers(rules: Rules) -> Iterator[_Reader]:
    settings = rules.settings
    if settings.acme_ca is not None and rules.acme_names:
        yield (
            settings.section,
            "acme_ca",
            None,
            partial(_of_authorities, settings.acme_ca, "acme_ca"),
        )
    for route in rules.routes:
        if route.terminate_tls is not None:
            yield route.section, "terminate_tls", None, partial(_of_end, route.terminate_tls)
    for backend in rules.backends.values():
        tls = backend.tls
        if tls is not None:
            yield backend.section, CLIENT_CERTIFICATE, None, partial(_of_servers, tls)
        if backend.via is not None:
            yield backend.section, "via", None, partial(_of_proxy, backend.via)
    yield from _readers_of_listeners(rules)


def _readers_of_listeners(rules: Rules) -> Iterator[_Reader]:
    for listener in rules.listeners:
        for number, text in enumerate(listener.endpoints):
            if text.lower().startswith("ssl:"):
                yield listener.section, "endpoint", number, partial(_of_endpoint, text)
        if listener.ech_keys is not None:
            yield listener.section, "ech_keys", None, partial(_of_keys, listener.ech_keys)


# What needs OpenSSL is imported where rules need it, since that takes a while.


def _of_authorities(path: Path, key: str) -> None:
    from txmux.net.tls.pem import read_authorities  # noqa: PLC0415 - as above

    read_authorities(
        path, key
    )  # one that has expired matters only to servers whose certificate it signed


def _of_end(end: TlsEnd) -> Iterable[tuple[str, float]]:
    from txmux.client.tls.client_certificates import ClientVerification  # noqa: PLC0415 - as above
    from txmux.client.tls.contexts import Contexts  # noqa: PLC0415 - as above

    if not end.acme:
        return Contexts(end).valid_until
    if end.client_ca is not None:
        ClientVerification(end)
    return ()  # `unusable_folder` reads them


def _of_servers(tls: ServerTLS) -> Iterable[tuple[str, float]]:
    from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - as above

    identity = BackendTLS(tls).identity
    return () if identity is None else [identity.valid_until]


def _of_proxy(via: Via) -> None:
    read_password(via)


def _of_endpoint(text: str) -> Iterable[tuple[str, float]]:
    from txmux.net.tls.pem import read_identity  # noqa: PLC0415 - as above

    files = files_of(SERVER, text)
    key = files["privateKey"]
    pair = dict.fromkeys((files.get("certKey", key), key))
    return [read_identity(pair, "endpoint").valid_until]


def _of_keys(path: Path) -> None:
    from txmux.client.tls.ech import read_key_files  # noqa: PLC0415 - as above

    read_key_files(path)


def _access_log(rules: Rules) -> Iterator[Problem]:
    settings = rules.settings
    if isinstance(settings.access_log, Path) and _is_there(settings.access_log):
        try:
            log = open_log(settings)
        except AccessLogError as error:
            yield settings.section.problem(str(error), "access_log")
        else:
            if log is not None:
                log.close()


def _tokens(rules: Rules) -> Iterator[Problem]:
    """Find what is wrong in the files of ``admin_token`` and ``admin_tokens``, if this process may read them."""
    settings = rules.settings
    own = None if settings.admin_token is None else AdminToken(OWN, "all", "")
    if not any(map(is_by_tcp, settings.admin)):
        return
    if settings.admin_token is not None and _is_there(settings.admin_token):
        try:
            own = AdminToken(OWN, "all", stored_token(settings.admin_token))
        except (MuxError, OSError) as error:
            if not isinstance(error, PermissionError):
                yield settings.section.problem(str(error), "admin_token")
    if settings.admin_tokens is None:
        return
    try:
        problems = read_tokens(read_list(settings.admin_tokens, LARGEST_TOKENS), own)[1]
    except PermissionError:
        return
    except OSError as error:
        problems = [f" cannot be read: {error.strerror}"]
    for problem in problems[:_MOST_LINES]:
        yield settings.section.problem(f"{settings.admin_tokens}{problem}", "admin_tokens")


def _is_there(path: Path) -> bool:
    """Return whether a file that a start makes is there, or something else in its place."""
    try:
        path.stat()
    except (FileNotFoundError, PermissionError):
        return False  # or others may look at it
    except OSError:
        return True
    return True
