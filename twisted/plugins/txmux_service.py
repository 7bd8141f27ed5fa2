"""Makes ``twist txmux`` known; imports nothing heavy, since every ``twist`` command reads it."""

from twisted.application.service import ServiceMaker

txmux = ServiceMaker(
    "txmux", "txmux.tap", "A port multiplexer: many protocols on one port.", "txmux"
)
