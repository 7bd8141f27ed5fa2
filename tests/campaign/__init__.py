"""Short runs of the campaign."""
