"""One module a command for people, each with ``run``."""
