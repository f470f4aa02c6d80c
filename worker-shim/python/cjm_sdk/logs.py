"""The `logging` module's records on the runtime channel.

What: one handler on the root logger. What not: loaded at all unless the tool itself imported `logging`.
Must hold: a record is sent with the job in whose call it was said; a handler that a tool removed comes back with the
next call; nothing here raises into the tool.
"""

import logging


class ChannelHandler(logging.Handler):
    """Sends records of at least `level` to the host."""

    def __init__(self, sink, level):
        super().__init__(level)
        self._sink = sink
        self._lines = logging.Formatter()

    def emit(self, record):
        """Sends one record; a failure goes to `logging`'s own error report, never to the author."""
        try:
            trace = self._lines.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
            self._sink.record(record.levelname, record.name, record.getMessage(), exc_text=trace)
        except Exception:
            self.handleError(record)


def attach(handler, sink, level_name):
    """The handler, standing on the root logger: the one given if it still does, else a new one or the same again."""
    root = logging.getLogger()
    if handler is not None and handler in root.handlers:
        return handler
    level = logging.getLevelName(level_name.upper())
    if not isinstance(level, int):
        level = logging.INFO
    if handler is None:
        handler = ChannelHandler(sink, level)
        if root.level in (logging.WARNING, logging.NOTSET):
            # The default threshold: nobody chose it, and it would hide what the host asked for.
            root.setLevel(level)
    root.addHandler(handler)
    return handler
