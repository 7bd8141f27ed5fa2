"""Makes ``twist txmux`` known; imports nothing heavy, since every ``twist`` command reads it."""

from typing import Any

from twisted.application.service import ServiceMaker

from txmux.processes.held_signals import hold_signals


class _Maker(ServiceMaker):
    @property
    def options(self) -> Any:  # only if its command is given
        hold_signals()  # importing takes a second, and nothing can be done for them before
        return super().options


txmux = _Maker(
    "txmux",
    "txmux.cli.twist",
    "A port multiplexer: many protocols on one TCP or UDP port.",
    "txmux",
)
