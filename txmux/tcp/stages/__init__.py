"""What a connection is at, one stage a file. None knows which comes next: see `txmux.tcp.connection`."""
