"""QUIC and HTTP/3 through one UDP port, with real clients and servers."""
