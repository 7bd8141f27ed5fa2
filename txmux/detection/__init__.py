"""From a client's first bytes to a decision; pure, without sockets or clocks."""
