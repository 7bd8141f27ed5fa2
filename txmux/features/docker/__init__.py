"""Rules from the labels of containers, of Docker or Podman."""
