"""Processes of txmux that are killed or halted in the middle of a change, with live streams through all of them."""
