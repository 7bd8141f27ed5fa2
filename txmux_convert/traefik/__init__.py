"""The TCP and UDP routers of Traefik's files, as rules."""
