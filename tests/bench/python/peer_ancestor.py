"""Measures the ancestor from inside its own environment: manager calls, queued jobs, a worker's memory.

What: `python peer_ancestor.py DATA_DIR CALLS JOBS` prints one JSON object. What not: ours. Must hold: everything it
writes stays in DATA_DIR, which its configuration is told too.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path


async def main():
    data_dir, calls, jobs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.environ["CJM_DATA_DIR"] = str(data_dir)
    tools = str(Path(__file__).parent)
    manifest = {
        "format_version": "2.0",
        "install": {
            "python_path": sys.executable,
            "conda_env": "bench",
            "db_path": "",
            "env_vars": {"PYTHONPATH": tools},
            "installed_at": "2026-01-01T00:00:00+00:00",
            "installer_version": "bench",
            "package_source": "bench",
        },
        "code": {
            "name": "bench-ancestor",
            "version": "1.0.0",
            "description": "",
            "module": "bench_ancestor.capability",
            "class": "BenchCapability",
            "config_schema": {},
        },
        "drift_tracking": {},
        "overrides": {},
    }
    manifests = data_dir / "manifests"
    manifests.mkdir(parents=True)
    (manifests / "bench-ancestor.json").write_text(json.dumps(manifest))

    from cjm_substrate.core.manager import CapabilityManager
    from cjm_substrate.core.queue import JobQueue, JobStatus

    manager = CapabilityManager(search_paths=[manifests])
    found = manager.discover_manifests()
    assert manager.load_capability(found[0]), "the tool was not loaded"
    try:
        taken = []
        for _ in range(calls):
            start = time.perf_counter()
            await manager.execute_capability_async("bench-ancestor", text="hello")
            taken.append(time.perf_counter() - start)
        resident = 0
        instance = manager.instances["bench-ancestor"]
        pid = instance.proxy.process.pid
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                resident = int(line.split()[1]) * 1024
        queue = JobQueue(manager, max_concurrent_lanes=4)
        await queue.start()
        text = "a" * 1000
        start = time.perf_counter()
        waiting = [await queue.submit("bench-ancestor", text=text) for _ in range(jobs)]
        for job in waiting:
            ended = await queue.wait_for_job(job)
            assert ended.status == JobStatus.completed, ended
        rate = jobs / (time.perf_counter() - start)
        await queue.stop()
    finally:
        manager.unload_all()
    print(json.dumps({"call_p50_us": statistics.median(taken) * 1e6, "jobs_per_s": rate, "worker_mb": resident / 1e6}))


asyncio.run(main())
