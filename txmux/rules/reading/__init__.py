"""From the text of rules files to `Rules`, or to all that is wrong in them."""
