"""The settings of a group in an ``sslh.cfg``, of which those that nobody has asked for are told in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from txmux.convert.sslh.libconfig import Setting
    from txmux.convert.writer import Draft, Section


@attrs.define
class Group:
    """Settings.

    Attributes:
        draft: Where is told what is lost.
        settings: Those that are left.
        line: Of the setting that was taken last.
        section: Where is told what is lost, too.
    """

    draft: Draft
    settings: dict[str, Setting]
    line: int
    section: Section | None = None

    @classmethod
    def read(cls, draft: Draft, value: Any, line: int) -> Group | None:
        """Take a group; ``None`` if the value is none, which is told."""
        if not isinstance(value, dict):
            text = f"'{value}'" if isinstance(value, str) else value
            draft.look(line, f"{text} is left out: it should be a group in braces")
            return None
        lines = [setting.line for setting in value.values()]
        return cls(draft, dict(value), min(lines, default=line))

    def warn(self, message: str, line: int = 0) -> None:
        """Report what is lost or different; as `Draft.warn`."""
        self.draft.warn(line or self.line, message, self.section)

    def look(self, message: str, line: int = 0) -> None:
        """Report what a person has to decide; as `Draft.look`."""
        self.draft.look(line or self.line, message, self.section)

    def take(self, kind: type, *names: str, default: Any = None) -> Any:
        """Take a setting away, and give its value.

        Args:
            kind: What it has to be; of anything else is told.
            names: Any of its names.
            default: What is given if it is not there.
        """
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
        """Take away a setting that has no counterpart, and tell so, unless it has the value that changes nothing."""
        setting = self.settings.pop(name, None)
        if setting is not None and setting.value != harmless:
            self.warn(f"{name}: has no counterpart{reason and f'; {reason}'}", setting.line)

    def need_look(self, name: str, reason: str) -> None:
        """Take away a setting that a person has to look at, if it is there."""
        setting = self.settings.pop(name, None)
        if setting is not None and setting.value:
            self.look(f"{name}: {reason}", setting.line)

    def rest(self) -> None:
        """Report what was not read."""
        for name, setting in self.settings.items():
            self.warn(f"{name}: is not an option of sslh that is known here", setting.line)
