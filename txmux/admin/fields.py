"""What a request says beside its path: read by name, and refused by name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from txmux.admin.refused import RefusedError
from txmux.rules.problems import joined, suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from txmux.control.report import Report

__all__ = ["boolean", "check_names", "choice", "only_values", "report_of", "text", "whole_number"]

T = TypeVar("T", bound=str)


def only_values(parameters: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the parameters of a query, none of which may be there twice."""
    for name, values in parameters.items():
        if len(values) > 1:
            raise RefusedError(400, f"{name}: is given more than once")
    return {name: value for name, (value,) in parameters.items()}


def check_names(body: Mapping[str, Any], known: Collection[str]) -> None:
    """See that a body has no field that nobody would look at."""
    for name in body:
        if name not in known:
            raise RefusedError(400, f"{name}: there is no such field{suggestion(name, known)}")


def choice(body: Mapping[str, Any], name: str, choices: Sequence[T]) -> T | None:
    """Read one of some words; ``None`` if the field is not there."""
    if name not in body:
        return None
    for one in choices:
        if body[name] == one:
            return one
    named = joined([repr(one) for one in choices])
    raise RefusedError(400, f"{name}: must be {named}, not {_shown(body[name])}")


def boolean(body: Mapping[str, Any], name: str) -> bool | None:
    """Read a truth value; ``None`` if the field is not there."""
    value = body.get(name)
    if name in body and not isinstance(value, bool):
        raise RefusedError(400, f"{name}: must be true or false, not {_shown(value)}")
    return value


def whole_number(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """Read a whole number; ``None`` if the field is not there."""
    if name not in body:
        return None
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        message = f"{name}: must be a whole number from {low} to {high}, not {_shown(value)}"
        raise RefusedError(400, message)
    return value


def text(body: Mapping[str, Any], name: str) -> str | None:
    """Read a text; ``None`` if the field is not there."""
    value = body.get(name)
    if name in body and not isinstance(value, str):
        raise RefusedError(400, f"{name}: must be a text, not {_shown(value)}")
    return value


def report_of(report: Report, status: int = 409) -> str:
    """Return what a change has come to, or refuse."""
    if not report.ok:
        raise RefusedError(status, report.errors[0], report.errors)
    return report.changes


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
