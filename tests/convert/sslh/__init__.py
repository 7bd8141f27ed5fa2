"""Tests of what is made of an ``sslh.cfg``."""
