#!/usr/bin/python3
"""Runs the test programs that cargo has built, several side by side, and tells what each of them said.

usage: programs.py ARTIFACTS --log FILE [--times FILE] [--jobs N] [--alone NAME...] [--crates NAME...]
                   [--without NAME...] [--room FOLDER --root FOLDER] [--as COMMAND...]
  ARTIFACTS  what `cargo build --all-targets --message-format=json` printed
  --log      gets the whole output of all programs, one after another
  --times    remembers what each took, so that the longest begins first the next time
  --alone    programs that measure time: they run after the others, one at a time
  --room     they were copied there: tests to FOLDER/deps, and the sources to --root
  --as       the words of a command that the program's path is added to; must come last

What a program says is kept until it ends, and shown in one piece: a line if all went well, else all of it. The exit
code is 0 only if every program's was.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

# A program that takes longer hangs: the slowest takes two minutes, and a test gives up on one command after four.
SECONDS_MAX = 600
# What was never measured begins before what is known to be short.
SECONDS_UNKNOWN = 60.0
# How often running programs are looked at.
LOOK_SECONDS = 0.02
SHOWN = re.compile(r"^(SKIPPED|MEASURED) ")


class Program:
    """One test program, from before its start to after its end."""

    def __init__(self, message, asked):
        target = message["target"]
        self.crate, self.name = crate_of(message["package_id"]), target["name"]
        self.folder = os.path.dirname(message["manifest_path"])
        self.path = message["executable"]
        if asked.room:
            self.path = os.path.join(asked.room, "deps", os.path.basename(self.path))
            self.folder = os.path.join(asked.root, os.path.relpath(self.folder, os.getcwd()))
        # A package's library, programs and tests may all have one name.
        self.label = f"{self.crate} {target['kind'][0]} {self.name}"

    def start(self, words):
        self.output = tempfile.TemporaryFile()
        self.began, self.hung = time.monotonic(), ""
        # In our own process group, so that Ctrl-C reaches it.
        self.process = subprocess.Popen(
            [*words, self.path], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)

    def has_ended(self):
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        self.seconds = time.monotonic() - self.began
        if pid == 0:
            if self.seconds > SECONDS_MAX and not self.hung:
                self.hung = f"\nended: it took longer than {SECONDS_MAX} s. What it had started:\n{started_by(self.process.pid)}"
                os.kill(self.process.pid, signal.SIGKILL)
            return False
        self.process.returncode = self.code = os.waitstatus_to_exitcode(status)
        self.processor_seconds = usage.ru_utime + usage.ru_stime
        self.output.seek(0)
        self.said = self.output.read().decode("utf-8", "replace") + self.hung
        return True

    def tell(self, log):
        log.write(self.said + "\n")
        log.flush()
        passed = sum(int(n) for n in re.findall(r"^test result: .*? (\d+) passed", self.said, re.M))
        if self.code != 0:
            print(f"{self.label}: FAILED (exit code {self.code}) after {self.seconds:.1f} s\n{self.said}", flush=True)
            # It ended without a sum, so nothing else would count it.
            if not re.search(r"^test result: FAILED", self.said, re.M):
                log.write("test result: FAILED. 0 passed; 1 failed; 0 ignored\n")
        elif passed:
            print(f"{self.label}: {passed} passed, {self.seconds:.1f} s, processors {self.processor_seconds:.1f} s")
            for line in self.said.splitlines():
                if SHOWN.match(line):
                    print(line)
            sys.stdout.flush()


def started_by(pid):
    """What runs below a process and what it waits for, a line each: where a test hangs shows there."""
    words = ["ps", "-eo", "pid=,ppid=,etimes=,stat=,wchan:24=,args="]
    listed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    below, known = {pid}, -1
    while known != len(below):
        known = len(below)
        below |= {int(line.split()[0]) for line in listed if int(line.split()[1]) in below}
    return "".join(f"{line}\n" for line in listed if int(line.split()[0]) in below)


def crate_of(package_id):
    """path+file:///FOLDER#NAME@VERSION, or without NAME where the folder has the same."""
    folder, _, named = package_id.partition("#")
    name = named.partition("@")[0]
    return name if "@" in named else os.path.basename(folder)


def programs(asked):
    found = {}
    with open(asked.artifacts, encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("reason") != "compiler-artifact" or not message.get("executable"):
                continue
            if message["profile"]["test"]:
                program = Program(message, asked)
                found[program.label] = program
    # A name that means nothing any more would let a program run where it must not.
    unknown = {*asked.alone, *asked.without} - {p.name for p in found.values()}
    unknown |= set(asked.crates) - {p.crate for p in found.values()}
    if unknown:
        sys.exit(f"no test program or crate has this name: {' '.join(sorted(unknown))}")
    chosen = [p for p in found.values() if p.name not in asked.without]
    return [p for p in chosen if not asked.crates or p.crate in asked.crates]


def side_by_side(waiting, at_once, asked, log):
    """Runs them, the first first; all that ran."""
    waiting, running, done = list(waiting), [], []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
                running[-1].start(asked.words)
            time.sleep(LOOK_SECONDS)
            for program in [p for p in running if p.has_ended()]:
                running.remove(program)
                program.tell(log)
                done.append(program)
    finally:
        for program in running:
            program.process.terminate()
    return done


def read_times(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, TypeError, ValueError):
        return {}


def keep_times(path, times):
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(times, file, indent=1, sort_keys=True)
    os.replace(f"{path}.new", path)


def arguments():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("artifacts")
    parser.add_argument("--log", required=True)
    parser.add_argument("--times")
    # More than there are processors: tests mostly wait, for processes to begin and to end.
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) + 2)
    for option in ("--alone", "--crates", "--without"):
        parser.add_argument(option, nargs="*", default=[])
    parser.add_argument("--room")
    parser.add_argument("--root")
    parser.add_argument("--as", dest="words", nargs=argparse.REMAINDER, default=[])
    return parser.parse_args()


def main():
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    times = read_times(asked.times)
    chosen = sorted(programs(asked), key=lambda p: -times.get(p.label, SECONDS_UNKNOWN))
    if not chosen:
        print("there are no test programs")
        return 1
    with open(asked.log, "w", encoding="utf-8") as log:
        done = side_by_side([p for p in chosen if p.name not in asked.alone], asked.jobs, asked, log)
        done += side_by_side([p for p in chosen if p.name in asked.alone], 1, asked, log)
    if asked.times:
        keep_times(asked.times, times | {p.label: round(p.seconds, 1) for p in done})
    busy = sum(p.processor_seconds for p in done)
    print(f"{len(done)} programs, {asked.jobs} side by side; their processors were busy for {busy:.0f} s")
    return 0 if all(p.code == 0 for p in done) else 1


if __name__ == "__main__":
    sys.exit(main())
