"""Whether a service can serve rules with the files that are there: each is read by the reader of what serves it."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from txmux.access.dynamic_networks import Lists
from txmux.admin.listen_addresses import at_automatic, stored_token
from txmux.client.tls.terminators import expiry_warnings
from txmux.errors import ListenError, MuxError, cause_of
from txmux.files import may_read, read_bytes
from txmux.net.sockets.descriptors import soft_limit
from txmux.net.tls.errors import CLIENT_CERTIFICATE, TLSFileError
from txmux.net.tls.validity import Validity
from txmux.processes.account import AccountError, account_of
from txmux.rules.installed import MANAGED, finders
from txmux.rules.lint.privileges import named_servers, obstacles
from txmux.rules.model import Rules, Section, Server, ServerTLS, TlsSettings
from txmux.rules.named_files import NamedFile, named_files, opened_for
from txmux.rules.optional import named
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.endpoints import files_of
from txmux.rules.reading.endpointstrings import SERVER
from txmux.rules.reading.sections import TABLES
from txmux.rules.reading.service import is_by_tcp
from txmux.rules.reading.tokens import LARGEST_TOKENS, OWN, AdminToken, read_tokens
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry.access_log import AccessLogError, open_log
from txmux.telemetry.formatting import plural

_Reader: TypeAlias = tuple[Section, str, "int | None", Callable[[], Any]]
_NEEDED = {name for keys in TABLES.values() for name, key in keys.items() if key.files.is_needed}
_MOST_LINES = 10
"""Problems of one file of tokens that are listed."""


_OTHER_DESCRIPTORS = 20
"""Descriptors that a starting worker needs besides its listening sockets."""


def unusable(rules: Rules) -> list[Problem]:
    """Return what keeps a service from starting with these rules: its files, and how many descriptors this process may have.

    Warnings are about files that a start replaces or does without, and about certificates that end. What this process may
    not read is left to `closed_files`.
    """
    problems = [problem for find in finders("start") for problem in find(rules)]
    problems += [*_files(rules), *obstacles(rules), *_access_log(rules), *_tokens(rules)]
    problems += [*at_automatic(rules), *too_many_sockets(rules, soft_limit())]
    for use in (Lists().prepare, account_of):
        try:
            use(rules)
        except (AccountError, RulesError) as error:
            problems += error.problems
    return problems


def too_many_sockets(rules: Rules, most: int, before: Collection[str] = ()) -> Iterator[Problem]:
    """Find whether rules have so many listening sockets, and more than `before`, that no worker could start with `most` descriptors.

    `before` has the keys of those that are open. The problem is that of the unit, if there is one, that would have the most new ones.
    """
    addresses = [listen_addresses(listener) for listener in rules.listeners]
    counts = [*map(len, addresses)]
    needed = 2 * sum(counts) + _OTHER_DESCRIPTORS  # what it receives, and a duplicate
    if needed > most and sum(counts) > len(before):
        new = [sum(one.key not in before for one in its) for its in addresses]
        units = [rules.unit_of(listener.section) for listener in rules.listeners]
        of_unit = Counter[str]()
        for unit, count in zip(units, new, strict=True):
            of_unit[unit] += count
        # The operator's come first, and are there in any case.
        worst = max(of_unit, key=lambda unit: (bool(unit and of_unit[unit]), of_unit[unit]))
        most_new = max(count for unit, count in zip(units, new, strict=True) if unit == worst)
        number = [*zip(units, new, strict=True)].index((worst, most_new))
        section = rules.listeners[number].section
        message = (
            f"with {plural(sum(counts), 'listening socket')}, a worker that starts needs some {plural(needed, 'descriptor')}, and may have "
            f"{most}: raise the limit (LimitNOFILE= in a systemd unit, or ulimit -n), and restart txmux"
        )
        yield section.problem(message, "endpoint")


def closed_files(rules: Rules) -> list[tuple[NamedFile, Path]]:
    """Return the files of rules that this process, without a helper, may not read: each once, with the key that names it."""
    settings, closed = rules.settings, dict[Path, NamedFile]()
    unused = set() if any(map(is_by_tcp, settings.admin)) else {"admin_token", "admin_tokens"}
    folder = None if MANAGED is None else MANAGED.folder(settings)
    for file in named_files(rules):
        # `missing_privileges` finds what a service may not write.
        is_written = folder in {file.path, file.path.parent}
        if file.row.files.opens != "worker-log" and not is_written and file.key not in unused:
            closed.update((path, file) for path in opened_for(file) if not may_read(path))
    return [(file, path) for path, file in closed.items()]


def _files(rules: Rules) -> Iterator[Problem]:
    """Read all files for TLS, the passwords of proxies, and the secrets for other programs, without which a service starts."""
    for section, key, number, read in _readers(rules):
        try:
            yield from expiry_warnings(section, read() or (), number)
        except MuxError as error:
            is_needed = isinstance(error, (ListenError, TLSFileError)) or key in _NEEDED
            problem = section.problem(str(error), getattr(error, "key", "") or key, number)
            if not isinstance(error.__context__, PermissionError):
                yield attrs.evolve(problem, warning=not is_needed)


def _readers(rules: Rules) -> Iterator[_Reader]:
    for route in rules.routes:
        if route.terminate_tls is not None:
            yield route.section, "terminate_tls", None, partial(_of_clients, route.terminate_tls)
    for backend in rules.backends.values():
        if backend.tls is not None:
            yield backend.section, CLIENT_CERTIFICATE, None, partial(_of_servers, backend.tls)
    yield from _readers_of_strings(rules)
    for file in named_files(rules):
        if file.row.files.reader:
            yield file.section, file.key, None, partial(_read_by, file.row.files.reader, file.path)


def _readers_of_strings(rules: Rules) -> Iterator[_Reader]:
    """Yield what reads the files that Twisted's endpoint strings name."""
    for listener in rules.listeners:
        for number, text in enumerate(listener.endpoints):
            if text.lower().startswith("ssl:"):
                yield listener.section, "endpoint", number, partial(_of_endpoint, text)
    for section, key, line, server in named_servers(rules):
        if isinstance(server, Server) and server.kind == "endpoint":
            yield section, key, line, partial(_of_server, server)


# What few rules need is imported where they do: OpenSSL and clients of HTTP take a while.


def _read_by(reader: str, path: Path) -> None:
    named(reader)(path)


def _of_clients(tls: TlsSettings) -> Iterable[Validity]:
    from txmux.client.tls.client_certificates import ClientVerification  # noqa: PLC0415 - as above
    from txmux.client.tls.contexts import Contexts  # noqa: PLC0415 - as above

    if not tls.managed:
        return Contexts(tls).validity
    # The feature that gets the certificates reads them.
    return () if tls.client_ca is None else ClientVerification(tls).validity()


def _of_servers(tls: ServerTLS) -> Iterable[Validity]:
    from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - as above

    return BackendTLS(tls).validity


def _of_server(server: Server) -> None:
    from txmux.serving.endpoints import check_servers  # noqa: PLC0415 - as above

    check_servers(None, [server])


def _of_endpoint(text: str) -> Iterable[Validity]:
    from txmux.net.tls.pem import read_identity  # noqa: PLC0415 - as above
    from txmux.serving.endpoints import server_endpoint  # noqa: PLC0415 - as above

    files = files_of(SERVER, text)
    key = files["privateKey"]
    pair = dict.fromkeys((files.get("certKey", key), key))
    identity = read_identity(pair, "endpoint")
    try:
        server_endpoint(None, text)
    except Exception as problem:
        raise ListenError(f"{text}: cannot listen: {cause_of(problem)}") from problem
    return identity.validity("endpoint")


def _access_log(rules: Rules) -> Iterator[Problem]:
    settings = rules.settings
    path = settings.access_log
    if isinstance(path, Path) and _is_there(path) and not os.path.isdir(path):  # noqa: PTH112 - never raises; a folder is an obstacle
        try:
            log = open_log(settings)
        except AccessLogError as error:
            if not isinstance(error.__cause__, PermissionError):
                message = str(error).removeprefix("[txmux] access_log: ")
                yield settings.section.problem(message, "access_log")
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
        problems = read_tokens(read_bytes(settings.admin_tokens, LARGEST_TOKENS), own)[1]
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
    except OSError as problem:  # or others may look at it
        return not isinstance(problem, (FileNotFoundError, PermissionError))
    return True
