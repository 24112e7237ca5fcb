#!/usr/bin/env python3
"""What the observer of operations costs a run on the virtual GPU: processor time of whole runs with and without it, in turn; writes observer_cost.md.

    engine/benches/observer_cost.py [--runs 10] [--write]

The least time of each counts: whatever else the machine does only adds to it.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {
    "14B, 1280x720, level 3, 2 steps": "model: wan2.1-t2v-14b\nlow_mem_level: 3\nresolution: 720p\nsteps_measured: 2\n",
    "14B, 1280x720, level 0, 2 steps": "model: wan2.1-t2v-14b\nlow_mem_level: 0\nresolution: 720p\nsteps_measured: 2\n",
    "14B, 1280x720, level 3, 20 steps": "model: wan2.1-t2v-14b\nlow_mem_level: 3\nresolution: 720p\nsteps_measured: 20\n",
}


def processor_secs(definition, observed):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "case.yaml")
        file.write_text(definition)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [ROOT / "target/release/lowmem", "sweep", file, "--gpu", "h100", "--device", "virtual", "--out", f"{folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "LOWMEM_OBSERVER": "on" if observed else "off"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    times = {(title, observed): [] for title in CASES for observed in (False, True)}
    # All cases in turn, so that what else the machine does for a while meets all of them.
    for _ in range(given.runs):
        for (title, observed), taken in times.items():
            taken.append(processor_secs(CASES[title], observed))
    lines = ["| run | without, s | with, s | cost |", "|---|--:|--:|--:|"]
    for title in CASES:
        without, observing = min(times[title, False]), min(times[title, True])
        lines.append(f"| {title} | {without:.2f} | {observing:.2f} | {(observing / without - 1) * 100:+.0f}% |")
    print("\n".join(lines))
    if given.write:
        head = "# What the observer costs\n\nProcessor time of whole runs on the virtual GPU, the least of %d each: `make bench`. Repeated on a quiet machine, the figures vary by about five in a hundred to either side; on a busy one by far more.\n\n" % given.runs
        (ROOT / "engine/benches/observer_cost.md").write_text(head + "\n".join(lines) + "\n")


main()
