"""Watching and controlling a service that runs, over HTTP."""
