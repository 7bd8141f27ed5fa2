"""Hostile peers of a service, beside each source that txmux asks: what it costs, and how soon it is known."""
