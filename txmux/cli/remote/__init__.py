"""Commands that ask a running service: where it is, how it is asked, and what comes of it.

Nothing here imports Twisted, so that these commands start fast.
"""
