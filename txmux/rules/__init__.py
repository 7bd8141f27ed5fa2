"""The language of rules files: text in, frozen values out."""
