"""The ``stream`` block of an ``nginx.conf``, as rules."""
