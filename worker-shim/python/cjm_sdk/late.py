"""Notices that a tool imports `logging` late: in a call, or by way of a library that it loads only then.

What: a finder in front of `sys.meta_path`, which finds what the others find and goes away once `logging` was imported.
What not: `logging` itself, which costs more time than a start may take (`logs.py`).
Must hold: the module that comes of it is what it would be without; nothing here raises into the tool.
"""

import sys

_NAME = "logging"


class Logging:
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
            # Another thread is just importing the handler, or the list is no list any more: the next call attaches it.
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
