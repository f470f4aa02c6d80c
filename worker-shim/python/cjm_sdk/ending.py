"""How a tool process ends where it cannot go on, and with which code.

What not: the usual end (`host.py`). Must hold: giving up needs no name that a tool can take away.
"""

from .kept import builtins as __builtins__, os
from . import errors

EXIT_UNANSWERED = 70
UNANSWERED = b"cjm: a call cannot be answered: whatever is tried raises, as where a tool overwrites this SDK\n"


def give_up(words=UNANSWERED, write=os.write, leave=os._exit, code=EXIT_UNANSWERED):
    """Ends the process, by names of its own alone."""
    try:
        write(2, words)
    finally:
        leave(code)


def exit_code(error):
    """With which a program of Python ends by that, which is told where it would be; ours is free to be interrupted."""
    if isinstance(error, KeyboardInterrupt):
        return 0
    code = error.code if isinstance(error, SystemExit) else error
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    errors.print_exception("cjm: a signal handler of the tool raised while no call ran:", error)
    return 1
