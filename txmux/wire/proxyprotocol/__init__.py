"""The PROXY protocol, which tells a server its client's address."""
