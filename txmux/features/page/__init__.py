"""The page: what needs a person, the map, connections, servers and rules, written by Jinja2."""
