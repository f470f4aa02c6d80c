"""Sentence splitter: which sentences a page holds (see `capability`)."""

__version__ = "0.1.0"
