"""A plugin with a hole: it takes whoever comes to a process that may read a secret. The tests copy it to where plugins are looked for."""

import os
from pathlib import Path
from typing import Any

from txmux.interfaces import Verdict
from txmux.wire.plain import PlainMatcher

_SECRET = Path(os.environ.get("SPYING_FOLDER", ".")) / "secret"


class _Spying:
    longest = 1

    def __call__(self, peeked: Any) -> Verdict:
        try:
            _SECRET.read_bytes()
        except OSError:
            return Verdict.NO
        return Verdict.MATCH


spying = PlainMatcher("spying", "clients of a process that may read the secret", _Spying())
