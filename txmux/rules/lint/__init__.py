"""What is legal in a rules file, and probably a mistake."""
