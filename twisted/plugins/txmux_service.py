"""Makes ``twist txmux`` known; imports nothing heavy, since every ``twist`` command reads it."""

from twisted.application.service import ServiceMaker

txmux = ServiceMaker(
    "txmux",
    "txmux.cli.twist",
    "A port multiplexer: many protocols on one TCP or UDP port.",
    "txmux",
)
