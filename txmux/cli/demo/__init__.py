"""The backends that answer in ``twist txmux --demo``: ordinary Twisted factories in the same process."""
