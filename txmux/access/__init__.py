"""Which clients are admitted: networks, bans and limits."""
