"""Tests of what is made of Traefik's files. There is no Traefik to run beside, so what comes out is compared alone."""
