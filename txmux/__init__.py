"""txmux: many protocols on one TCP port, told apart by what the client says first."""

__version__ = "0.1.0.dev0"
