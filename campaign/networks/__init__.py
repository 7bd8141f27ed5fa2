"""The part of the campaign that has real programs speak through bad networks: see `part`."""
