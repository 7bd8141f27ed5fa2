"""Which files that TLS needs cannot be used, told with the lines that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.rules.model import NOWHERE
from txmux.rules.problems import Problem
from txmux.tls.contexts import Contexts
from txmux.tls.pem import TLSFileError

if TYPE_CHECKING:
    from txmux.rules.model import Route, Rules

__all__ = ["problem_with", "unusable_files"]


def unusable_files(rules: Rules) -> tuple[list[Problem], list[Problem]]:
    """Read the files of all routes that end TLS.

    Args:
        rules: Without errors.

    Returns:
        What is wrong with them, and apart from that which of them this process may not read, though another may.
    """
    wrong: list[Problem] = []
    forbidden: list[Problem] = []
    for route in rules.routes:
        error = _error_of(route)
        if error is not None:
            (forbidden if error.forbidden else wrong).append(problem_with(rules, route, error))
    return wrong, forbidden


def _error_of(route: Route) -> TLSFileError | None:
    try:
        if route.terminate_tls is not None:
            Contexts(route.terminate_tls)
    except TLSFileError as error:
        return error
    return None


def problem_with(rules: Rules, route: Route, error: TLSFileError) -> Problem:
    """Tell of a file with the place in the rules that names it."""
    if route.section is NOWHERE:
        return Problem(str(rules.path), 0, f"route {route.name}", error.key, str(error))
    return route.section.problem(str(error), error.key)
