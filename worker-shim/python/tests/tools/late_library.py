"""A library that is loaded lazily, and loads `logging`."""

import logging  # noqa: F401
