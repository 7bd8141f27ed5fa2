"""Whatever reads what others have written is given what nobody would write.

Each module of `targets` has one `Target`, and `converting` has those for configurations: what is asked of a reader, and where its inputs begin. `part` has atheris look for
more of them, led by coverage, each target in a process of its own. What that has found is kept in `corpus`, a line an input.
"""
