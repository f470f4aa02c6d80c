"""The `logging` module's records on the runtime channel, whenever a tool imports that module.

What: one handler on the root logger; and a finder in front of `sys.meta_path`, which finds what the others find and
goes away once `logging` was imported: in a call, say, or by a library that is loaded only then.
What not: `logging` itself, which costs more time than a start may take. This module is loaded at the start, since the
tool may give up the right to read it before it imports `logging`.
Must hold: a record is sent with the job in whose call it was said; a handler that a tool removed comes back with the
next call; a module that the finder finds is what it would be without it; nothing here raises into the tool.
"""

import sys

from .kept import builtins as __builtins__

_NAME = "logging"


def attach(handler, sink, level_name):
    """The handler, standing on the root logger: the one given if it still does, else a new one or the same again."""
    import logging

    root = logging.getLogger()
    if handler is not None and handler in root.handlers:
        return handler
    level = logging.getLevelName(level_name.upper())
    if not isinstance(level, int):
        level = logging.INFO
    if handler is None:
        handler = _handler_class(logging)(sink, level)
        if root.level in (logging.WARNING, logging.NOTSET):
            # The default threshold: nobody chose it, and it would hide what the host asked for.
            root.setLevel(level)
    root.addHandler(handler)
    return handler


def _handler_class(logging):
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

    return ChannelHandler


class Watch:
    """Stands in front of `sys.meta_path` until `logging` was imported, and calls `attach` right after."""

    def __init__(self, attach):
        self._attach = attach
        # In the middle of asking the others, one of which may do the same.
        self._asks = False
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        """Of `logging` what the other finders say, with a loader that tells when it has run; of any other nothing."""
        if name != _NAME or self._asks:
            return None
        self._asks = True
        try:
            spec = self._found_by_others(name, path, target)
        finally:
            self._asks = False
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self._imported)
        return spec

    def _found_by_others(self, *what):
        # One of them may go away meanwhile, or bring another.
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(*what)
            if spec is not None:
                return spec
        return None

    def _imported(self):
        try:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            self._attach()
        except Exception:
            # The list is no list any more, say: the next call attaches the handler.
            pass


class _Loader:
    """A loader as it is, but that it tells when the module was executed; the module does not know of it."""

    def __init__(self, loader, then):
        self._loader, self._then = loader, then

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        """Executes it with its own loader."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then()
