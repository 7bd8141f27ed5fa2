"""Files for TLS that cannot be used, with the lines that name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from txmux.net.tls.contexts import Contexts
from txmux.net.tls.errors import TLSFileError, errors
from txmux.net.tls.pem import read_authorities, read_identity
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.model import Rules, ServerTLS
    from txmux.rules.problems import Problem


def unusable_files(rules: Rules) -> tuple[list[Problem], list[Problem]]:
    """Read all files for TLS; return what is wrong, and apart from that those only this process may not read."""
    found = [*errors(rules, lambda _, end: Contexts(end))]
    for backend in rules.backends.values():
        of_backend = _of_backend(backend.tls) if backend.tls is not None else ()
        found += [(one, backend.section.problem(str(one), one.key)) for one in of_backend]
    for listener in rules.listeners:
        for number, text in enumerate(listener.endpoints):
            section, of_endpoint = listener.section, _of_endpoint(text)
            found += [(one, section.problem(str(one), one.key, number)) for one in of_endpoint]
    wrong = [problem for error, problem in found if not error.forbidden]
    return wrong, [problem for error, problem in found if error.forbidden]


def _of_endpoint(text: str) -> Iterator[TLSFileError]:
    if not text.lower().startswith("ssl:"):
        return
    given = SERVER["ssl"].check(split_arguments(text))
    key = given.get("privateKey", "server.pem")
    try:
        read_identity(map(Path, dict.fromkeys((given.get("certKey", key), key))), "endpoint")
    except TLSFileError as error:
        yield error


def _of_backend(tls: ServerTLS) -> Iterator[TLSFileError]:
    try:
        if tls.ca is not None:
            read_authorities(tls.ca)
    except TLSFileError as error:
        yield error
    try:
        if tls.certificate:
            read_identity(tls.certificate)
    except TLSFileError as error:
        yield error
