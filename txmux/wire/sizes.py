"""Options of matchers that are a number of bytes."""

import re
from collections.abc import Mapping

from txmux.errors import OptionError

__all__ = ["option_size"]

_KIB = 1024
_SIZE = re.compile("([0-9]{1,5})(KiB)?")


def option_size(options: Mapping[str, str], name: str, default: int, allowed: range) -> int:
    """Read a size in bytes, such as ``512`` or ``16KiB``.

    Args:
        options: The options of a ``match =`` line.
        name: Which of them.
        default: The size, in bytes, if the option is not there.
        allowed: The sizes that may be written.

    Raises:
        OptionError: It is not such a size.
    """
    if name not in options:
        return default
    match = _SIZE.fullmatch(options[name])
    size = int(match[1]) * (_KIB if match[2] else 1) if match else -1
    if size in allowed:
        return size
    least, most = _shown(allowed[0]), _shown(allowed[-1])
    message = f"{options[name]!r} is not a size in range; write one from {least} to {most}, such as {_shown(default)}"
    raise OptionError(name, message)


def _shown(size: int) -> str:
    return str(size) if size % _KIB else f"{size // _KIB}KiB"
