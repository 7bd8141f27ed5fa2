"""Commands that talk to a running service: finding it, requests, and their results.

Nothing here imports Twisted, so that these commands start fast.
"""
