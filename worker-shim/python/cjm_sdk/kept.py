"""What this SDK uses of Python itself, as it was before any code of a tool ran.

What: `os`, `threading` and `time` with the functions of this moment; and the builtins, which a module of the SDK uses by
having them as its `__builtins__`, where the interpreter looks first. What not: what others are meant to replace, such as
`sys.stderr`, or what the standard library uses of itself.
Must hold: a tool that overwrites one of these names, as a library for tests does with the clock, changes nothing in how its
calls are answered and how its process ends.
"""

import builtins as _builtins
import os as _os
import threading as _threading
import time as _time


class _Kept:
    def __init__(self, module):
        vars(self).update(vars(module))


os, threading, time = _Kept(_os), _Kept(_threading), _Kept(_time)
builtins = dict(vars(_builtins))
