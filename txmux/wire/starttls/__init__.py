"""Protocols that begin in the clear and go on with TLS: the dialogues until then, one protocol or kind of protocols a file."""
