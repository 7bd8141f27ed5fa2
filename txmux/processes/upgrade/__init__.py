"""Replaces an old process with a new one, and moves its connections."""

ENDS = "TXMUX_PREDECESSOR"
"""The environment variable with the new process's descriptor of the channel to the old one."""
