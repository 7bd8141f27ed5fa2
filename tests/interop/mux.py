"""``twist txmux`` as a child process, by its former names."""

from tests.support.services import Change, LoggingTwist, Record, Twist, pool_rules, twist_command
from tests.support.services import Service as Mux

__all__ = ["Change", "LoggingTwist", "Mux", "Record", "Twist", "pool_rules", "twist_command"]
