"""Measures Ray from inside its own environment: actor calls, tasks, a worker's memory.

What: `python peer_ray.py DIR CALLS TASKS` prints one JSON object. Must hold: nothing of Ray is left running.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import ray


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@ray.remote
class Actor:
    """Answers what the tools of the bench answer."""

    def echo(self, text):
        return {"ok": True}

    def pid(self):
        return os.getpid()


@ray.remote
def task(text):
    return {"ok": True}


def main():
    directory, calls, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200_000_000,
        _temp_dir=directory,
    )
    try:
        actor = Actor.remote()
        for _ in range(50):
            ray.get(actor.echo.remote("hello"))
        taken = []
        for _ in range(calls):
            start = time.perf_counter()
            ray.get(actor.echo.remote("hello"))
            taken.append(time.perf_counter() - start)
        memory = resident(ray.get(actor.pid.remote()))
        text = "a" * 1000
        ray.get([task.remote(text) for _ in range(100)])
        start = time.perf_counter()
        ray.get([task.remote(text) for _ in range(tasks)])
        rate = tasks / (time.perf_counter() - start)
    finally:
        ray.shutdown()
    print(json.dumps({"call_p50_us": statistics.median(taken) * 1e6, "jobs_per_s": rate, "worker_mb": memory / 1e6}))


main()
