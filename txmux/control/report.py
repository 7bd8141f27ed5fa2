"""The result of a change by the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.telemetry.documents import ReportDocument


class UnknownError(MuxError):
    """The rules name no such listener, backend, server or certificate."""


@frozen
class Report:
    """The result of a change.

    Attributes:
        ok: Whether it was made, by all workers.
        changes: A description of what has changed, on one line; empty if nothing has.
        errors: Why it was not made, one line each.
        details: Further fields of the answer to the operator.
        do: See `MuxError`.
    """

    ok: bool
    changes: str = ""
    errors: Sequence[str] = ()
    details: Mapping[str, Any] = attrs.field(factory=dict)
    do: str = ""

    @classmethod
    def refused(cls, problem: object) -> Report:
        errors = str(problem).splitlines() or [repr(problem)]
        return cls(ok=False, errors=errors, do=getattr(problem, "do", ""))

    def as_json(self) -> ReportDocument:
        return {"ok": self.ok, "changes": self.changes, "errors": [*self.errors]}
