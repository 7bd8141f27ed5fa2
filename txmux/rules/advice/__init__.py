"""What the writer of rules may have meant: asked only where there is an error, and told all that it takes to know.

A function that `InvalidValueError.ask` names gets the messages so far, and returns those to show.
"""
