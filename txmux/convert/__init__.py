"""From the configurations of other programs to rules files."""
