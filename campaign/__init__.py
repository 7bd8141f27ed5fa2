"""Attacks on the promises of txmux, for as long as they are given: ``script/campaign``.

Each part is a package here, of the same name, whose module ``part`` has a function ``run``: it takes a `Budget` and
gives a `Report`. `tests/campaign` runs the same with a small budget, so that the machinery stays whole.
"""
