"""Converted configurations beside the programs that they are of, with healthy, dead, picky and slow servers."""
