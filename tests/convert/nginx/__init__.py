"""Tests of what is made of an ``nginx.conf``."""
