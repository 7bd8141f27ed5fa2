"""Tests of the demo's backends."""
