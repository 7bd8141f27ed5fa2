"""What is claimed of speed, measured beside real peers: ``script/bench``."""
