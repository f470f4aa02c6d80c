"""Keeps compiled modules whole. Read and run by `run.py` and `introspect.py`, and not imported: what is imported may be cut.

What: on a full disk a Python of before 2025 writes a part of a compiled file, in the place where all later processes look
for it (python/cpython, gh-126606), and none of them imports that module again. Here such a file is taken away as soon as it is
written, and one that cannot be read is made anew from its source: of this SDK, of the tool, of its packages.
What not: a judge of what can be read.
"""

from importlib.machinery import SourceFileLoader
from os import stat, unlink


def _keep_whole(loader):
    write, read = loader.set_data, loader.get_code

    def set_data(self, path, data, **how):
        write(self, path, data, **how)
        try:
            if stat(path).st_size != len(data):
                unlink(path)
        except OSError:
            pass

    def get_code(self, name):
        try:
            return read(self, name)
        except (EOFError, ImportError, TypeError, ValueError):
            from importlib.util import cache_from_source

            source = self.get_filename(name)
            try:
                unlink(cache_from_source(source))
            except (OSError, NotImplementedError):
                pass
            return self.source_to_code(self.get_data(source), source)

    loader.set_data, loader.get_code = set_data, get_code


_keep_whole(SourceFileLoader)
