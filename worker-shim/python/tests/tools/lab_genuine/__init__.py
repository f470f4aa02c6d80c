"""A tool of the ancestor's family for the tests; it needs an interpreter with `cjm_substrate` in it."""

__version__ = "1.2.3"
