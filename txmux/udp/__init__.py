"""Datagrams: the ports where they come in, the flows that they belong to, and the way to the servers."""
