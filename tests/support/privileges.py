"""What an ordinary user may not do."""

from unittest import SkipTest

from txmux.backends.connect.source import check_transparent
from txmux.errors import MuxError


def require_transparent() -> None:
    """Go on only if this process may send from the addresses of others."""
    try:
        check_transparent()
    except MuxError as missing:
        raise SkipTest(str(missing)) from missing
