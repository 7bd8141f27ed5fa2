"""Terminates the TLS of clients, as the rules say."""
