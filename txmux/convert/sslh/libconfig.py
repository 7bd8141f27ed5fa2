"""Files in the format of libconfig, read by the package libconf, with the line of each setting."""

from __future__ import annotations

import io
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import attrs

from txmux.convert.writer import ConvertError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")


@attrs.frozen
class Setting:
    """A setting's value: a string, number or boolean, a list, a tuple, or a group, which is a mapping to settings."""

    value: Any
    line: int


def read_libconfig(data: bytes, path: str) -> Mapping[str, Setting]:
    r"""Read a file.

    Args:
        data: What is in it. Each character of the strings that are given stands for one byte, so that
            ``\xNN`` means the same as in C.
        path: Its name.

    Raises:
        ConvertError: It is not such a file, or `libconf` is not installed.
    """
    try:
        libconf = import_module("libconf")
    except ModuleNotFoundError:
        raise ConvertError(
            "an sslh.cfg needs the package libconf; install it: pip install 'txmux[convert]'"
        ) from None

    def setting(self: Any) -> Any:
        token = self.tokens.peek()
        found = libconf.Parser.setting(self)
        return found and (found[0], Setting(found[1], token.row))

    located = type("Located", (libconf.Parser,), {"setting": setting})
    try:
        tokens = libconf.TokenStream.from_file(io.StringIO(data.decode("latin-1")), filename=path)
        settings: Mapping[str, Setting] = located(tokens).parse()
    except (libconf.ConfigParseError, ValueError, OSError, RecursionError) as error:
        raise ConvertError(
            f"{path} is not a file that libconfig reads: {_told(str(error))}"
        ) from None
    return settings


def _told(error: str) -> str:
    """Write the characters of a file in an error of the package, which has taken each byte for one, and may have cut the last."""
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), error)
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
