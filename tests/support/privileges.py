import os
from collections.abc import Callable
from typing import TypeVar
from unittest import SkipTest

from txmux.backends.connect.source import check_transparent
from txmux.errors import MuxError

T = TypeVar("T")
NOBODY = 65534


def as_nobody(function: Callable[[], T]) -> T:
    """Call a function as a user who has no privileges; one who is not root has none."""
    if os.getuid() == 0:
        os.seteuid(NOBODY)
    try:
        return function()
    finally:
        os.seteuid(os.getuid())


def require_transparent() -> None:
    """Skip the test unless this process may use foreign source addresses."""
    try:
        check_transparent()
    except MuxError as missing:
        raise SkipTest(str(missing)) from missing
