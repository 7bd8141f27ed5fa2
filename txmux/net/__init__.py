"""Sockets, relays, TLS and messages between processes: bytes, whatever they mean."""
