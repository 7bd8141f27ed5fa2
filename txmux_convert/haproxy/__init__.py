"""The TCP part of an ``haproxy.cfg`` as rules."""
