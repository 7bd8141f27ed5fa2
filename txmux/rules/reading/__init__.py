"""From the text of rules files to `Rules`, or to all that is wrong in them.

A function that reads one value raises `InvalidValueError` with all that is wrong with it.
"""
