"""The errors that txmux raises; each message tells its reader what to change."""

__all__ = ["ListenError", "MuxError", "OptionError"]


class MuxError(Exception):
    """What all errors of txmux have in common."""


class OptionError(MuxError):
    """A matcher cannot use an option's value, or cannot do without it.

    Args:
        option: The option's name, or ``None`` when no single option is at fault.
        message: What is wrong and what would be right, without the option's name.
    """

    def __init__(self, option: str | None, message: str) -> None:
        super().__init__(f"{option}: {message}" if option else message)
        self.option = option


class ListenError(MuxError):
    """A listening socket could not be opened: a taken port, a missing permission."""
