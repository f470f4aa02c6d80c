#!/usr/bin/python3
"""Puts the programs that cargo has built where another user can read them, so that they need not be built again.

usage: room.py ARTIFACTS FOLDER
  ARTIFACTS  what `cargo build --all-targets --message-format=json` printed
  FOLDER     gets the tests in deps/, the binaries beside it, the examples in examples/, as in a folder of cargo's

What everybody may read already is linked, which costs no room; all else is copied.
"""

import json
import os
import shutil
import sys

EVERYBODY = 0o005


def executables(artifacts):
    with open(artifacts, encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("reason") == "compiler-artifact" and message.get("executable"):
                yield message["executable"], message["profile"]["test"]


def put(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.exists(target):
        if os.path.samefile(source, target):
            return
        os.remove(target)
    if os.stat(source).st_mode & EVERYBODY == EVERYBODY:
        try:
            os.link(source, target)
            return
        except OSError:
            # Another file system, or one without links.
            pass
    shutil.copyfile(source, target)
    os.chmod(target, 0o755)


def main(artifacts, folder):
    found = list(executables(artifacts))
    # Tests lie in PROFILE/deps.
    profile = next(os.path.dirname(os.path.dirname(path)) for path, is_test in found if is_test)
    wanted = {os.path.join(folder, os.path.relpath(path, profile)): path for path, _ in found}
    for place, _, names in os.walk(folder):
        for name in names:
            if os.path.join(place, name) not in wanted:
                os.remove(os.path.join(place, name))
    for target, source in wanted.items():
        put(source, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
