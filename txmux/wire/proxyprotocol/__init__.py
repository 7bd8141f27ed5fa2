"""The PROXY protocol: it passes the client's address to a server."""
