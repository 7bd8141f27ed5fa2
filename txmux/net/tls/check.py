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
    """Read the files of all routes that terminate TLS, of all backends with TLS, and of ``ssl:`` endpoints.

    Returns:
        What is wrong with them, and apart from that the ones that only this process may not read.
    """
    wrong: list[Problem] = []
    forbidden: list[Problem] = []
    for error, problem in errors(rules, lambda _, end: Contexts(end)):
        (forbidden if error.forbidden else wrong).append(problem)
    for backend in rules.backends.values():
        for error in _of_backend(backend.tls) if backend.tls is not None else ():
            problem = backend.section.problem(str(error), error.key)
            (forbidden if error.forbidden else wrong).append(problem)
    for listener in rules.listeners:
        for number, endpoint in enumerate(listener.endpoints):
            for error in _of_endpoint(endpoint):
                problem = listener.section.problem(str(error), error.key, number)
                (forbidden if error.forbidden else wrong).append(problem)
    return wrong, forbidden


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
