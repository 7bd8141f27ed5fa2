"""A client's connection or flow, as the rest of the program sees it."""
