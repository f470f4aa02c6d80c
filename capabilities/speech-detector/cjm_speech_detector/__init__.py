"""Speech detector: where a recording holds speech (see `capability`)."""

__version__ = "0.1.0"
