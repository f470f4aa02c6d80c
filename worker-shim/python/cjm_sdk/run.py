"""The tool process: `PYTHON -u …/cjm_sdk/run.py`, started by the shim with the runtime channel on a descriptor.

What: makes the import path that of an installed program, then hands over to `host`. What not: anything else, because
a script is compiled anew at every start.
Must hold: this SDK is found before any other package of its name, and hides no module of the tool's; the present folder
is on no path, because it is that of whoever called, whose files are none of the tool's.
"""

import os
import sys

if __name__ == "__main__":
    home = os.path.dirname(os.path.abspath(__file__))
    parent = os.path.dirname(home)
    if sys.path and os.path.abspath(sys.path[0]) == home:
        del sys.path[0]
    sys.path.insert(0, parent)
    with open(os.path.join(home, "whole.py"), encoding="utf-8") as whole:
        exec(compile(whole.read(), whole.name, "exec"), {})
    from cjm_sdk import host

    # Last, where it shadows nothing; the package itself is loaded and finds its parts by its own path.
    del sys.path[0]
    sys.path.append(parent)
    host.main()
