"""What a running service tells of its connections, routes and servers, and how these are changed."""
