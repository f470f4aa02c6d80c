"""A task adapter for tools that know media files, such as `cjm-capability-ffmpeg`."""

__version__ = "0.1.0"
