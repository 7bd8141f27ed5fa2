"""Protocols that begin in the clear and continue with TLS: the dialogues until then, one protocol or kind of protocols a file."""
