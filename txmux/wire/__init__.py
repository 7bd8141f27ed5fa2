"""Parts of matchers: predicates, and readers of wire formats.

Authors of plugins may use what this package offers itself, and all that its modules list in ``__all__``:

- `plain`: a matcher without options, written as data; `predicates`: what most protocols begin with;
- `cursor`: binary fields; `globs` and `sizes`: the values of options; `facts`: values for the access log;
- `client_hello`: TLS; `http_head`, `http2_opening`: HTTP; `postgres_startup`: PostgreSQL.

A parser is given to `txmux.interfaces.Peeked.parsed`, so that all matchers share its result.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txmux.wire.cursor import Cursor, MalformedError, ShortError
    from txmux.wire.plain import PlainMatcher
    from txmux.wire.predicates import (
        DatagramFields,
        Either,
        Fields,
        Pattern,
        Prefix,
        begins_with,
        verdict_of,
    )

__all__ = [
    "Cursor", "DatagramFields", "Either", "Fields", "MalformedError", "Pattern", "PlainMatcher",
    "Prefix", "ShortError", "begins_with", "verdict_of",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # Imported lazily: readers of one format do not need the parts of matchers.
    if name in __all__:
        for module in ("cursor", "plain", "predicates"):
            home = import_module(f"{__name__}.{module}")
            if name in home.__all__:
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
