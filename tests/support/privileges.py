"""Tests that need privileges."""

from unittest import SkipTest

from txmux.backends.connect.source import check_transparent
from txmux.errors import MuxError


def require_transparent() -> None:
    """Skip the test unless this process may use foreign source addresses."""
    try:
        check_transparent()
    except MuxError as missing:
        raise SkipTest(str(missing)) from missing
