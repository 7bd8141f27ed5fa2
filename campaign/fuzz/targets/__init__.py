"""One reader a module, with what holds for it."""
