"""The settings of an ``sslh.cfg``, read by the package libconf, each with its line."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import attrs

from txmux_convert.writer import ConvertError, Draft, DraftSection, import_package

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
    libconf = import_package("libconf", "an sslh.cfg")

    def setting(self: Any) -> Any:
        token = self.tokens.peek()
        pair = libconf.Parser.setting(self)
        return pair and (pair[0], Setting(pair[1], token.row))

    located = type("Located", (libconf.Parser,), {"setting": setting})
    try:
        tokens = libconf.TokenStream.from_file(io.StringIO(data.decode("latin-1")), filename=path)
        settings: Mapping[str, Setting] = located(tokens).parse()
    except (libconf.ConfigParseError, ValueError, OSError, RecursionError) as error:
        raise ConvertError(
            f"{path} is not a file that libconfig reads: {_readable(str(error))}"
        ) from None
    return settings


def _readable(error: str) -> str:
    """Decode the text of a file in an error of the package, which takes each byte for a character."""
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), error)
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


@attrs.define
class SettingsGroup:
    """A group of settings; `line` is that of the setting taken last."""

    draft: Draft
    settings: dict[str, Setting]
    line: int
    section: DraftSection | None = None

    @classmethod
    def read(cls, draft: Draft, value: Any, line: int) -> SettingsGroup | None:
        """Read a group; ``None`` if the value is not one, which is reported."""
        if not isinstance(value, dict):
            text = f"'{value}'" if isinstance(value, str) else value
            draft.flag(line, f"{text} is left out: it should be a group in braces")
            return None
        lines = [setting.line for setting in value.values()]
        return cls(draft, dict(value), min(lines, default=line))

    def warn(self, message: str, line: int = 0) -> None:
        self.draft.warn(line or self.line, message, self.section)

    def flag(self, message: str, line: int = 0) -> None:
        self.draft.flag(line or self.line, message, self.section)

    def take(self, kind: type, *names: str, default: Any = None) -> Any:
        for name in names:
            setting = self.settings.pop(name, None)
            if setting is None:
                continue
            value = setting.value
            if kind is list and isinstance(value, tuple):
                value = list(value)
            if kind is str and isinstance(value, int):
                value = str(value)
            is_wrong = (kind is int and isinstance(value, bool)) or (
                isinstance(value, int) and value < 0
            )
            if isinstance(value, kind) and not is_wrong:
                self.line = setting.line
                return value
            text = f"'{value}'" if isinstance(value, str) else value
            self.warn(f"{name}: {text} is not what it takes", setting.line)
        return default

    def leave_out(self, name: str, reason: str = "", *, harmless: bool = False) -> None:
        """Remove a setting without counterpart; report it unless its value is `harmless`."""
        setting = self.settings.pop(name, None)
        if setting is not None and setting.value != harmless:
            self.warn(f"{name}: has no counterpart{reason and f'; {reason}'}", setting.line)

    def set_aside(self, name: str, hint: str = "", *, harmless: bool = False) -> None:
        setting = self.settings.pop(name, None)
        if setting is not None and setting.value is not harmless:
            self.draft.set_aside(setting.line, name, hint)

    def flag_if_set(self, name: str, reason: str) -> None:
        setting = self.settings.pop(name, None)
        if setting is not None and setting.value:
            self.flag(f"{name}: {reason}", setting.line)

    def rest(self) -> None:
        for name, setting in self.settings.items():
            self.warn(f"{name}: is not an option of sslh that is known here", setting.line)
