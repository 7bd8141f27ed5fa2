"""What a client says to a proxy that is to connect it to a server."""
