"""Tests of what is asked of other services by HTTP."""
