"""An ``sslh.cfg`` as rules."""
