"""The stages of a connection. None knows which comes next: see `txmux.tcp.transitions`."""
