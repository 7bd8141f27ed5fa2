"""The PROXY protocol: how a backend learns whose connection it serves."""
