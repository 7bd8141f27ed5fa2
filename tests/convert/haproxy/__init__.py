"""Tests of what is made of an ``haproxy.cfg``."""
