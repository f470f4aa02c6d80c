"""Speech recognizer: what is said in a recording, within a grammar (see `capability`)."""

__version__ = "0.1.0"
