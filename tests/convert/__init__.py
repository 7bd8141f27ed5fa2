"""Tests of the conversion of other programs' configurations."""
