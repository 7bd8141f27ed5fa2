"""Which files that TLS needs cannot be used, told with the lines that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.rules.model import NOWHERE
from txmux.rules.problems import Problem
from txmux.tls.contexts import Contexts
from txmux.tls.pem import TLSFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from txmux.rules.model import Route, Rules, TlsEnd


def unusable_files(rules: Rules) -> tuple[list[Problem], list[Problem]]:
    """Read the files of all routes that end TLS.

    Returns:
        What is wrong with them, and apart from that which of them this process may not read, though another may.
    """
    wrong: list[Problem] = []
    forbidden: list[Problem] = []
    for error, problem in errors(rules, lambda _, end: Contexts(end)):
        (forbidden if error.forbidden else wrong).append(problem)
    return wrong, forbidden


def errors(
    rules: Rules, read: Callable[[Route, TlsEnd], object]
) -> Iterator[tuple[TLSFileError, Problem]]:
    """Read the files of all routes that end TLS, and give each error, also with the line that names the file.

    Args:
        rules: Without errors.
        read: Reads those of one route.
    """
    for route in rules.routes:
        try:
            if route.terminate_tls is not None:
                read(route, route.terminate_tls)
        except TLSFileError as error:  # noqa: PERF203 - all errors are to be told
            if route.section is NOWHERE:
                header = f"route {route.name}"
                yield error, Problem(str(rules.path), 0, header, error.key, str(error))
            else:
                yield error, route.section.problem(str(error), error.key)
