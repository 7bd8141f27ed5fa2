"""UDP: ports, the flows of clients, and the sockets to their servers."""
