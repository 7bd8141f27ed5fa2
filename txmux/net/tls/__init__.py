"""TLS on byte streams, without rules: PEM files, transports, the identity of servers."""
