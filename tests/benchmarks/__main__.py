"""`make bench`: how fast, as ratios taken in one run, beside the raw limits measured there and then.

    python -m tests.benchmarks                  everything
    python -m tests.benchmarks latency backlog  some subjects

One module per subject, each with a `run(bench)` that yields `Row`s; to add one, write it and enter it below. Absolute rates on a
shared machine swing by a factor of two or three, so a target that is a rate is a ratio between cases that took turns, and CPU is
process time. A missed target is said in the table; the exit code is 0 all the same, because a busy machine is no broken build.
"""

import argparse
import os
import sys
import time

from tests.benchmarks import backlog, latency, limits, weight
from tests.benchmarks.bench import Bench, print_table

SUBJECTS = {"limits": limits.run, "latency": latency.run, "backlog": backlog.run, "weight": weight.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="which; all when none is named")
    chosen = parser.parse_args().subjects or list(SUBJECTS)
    rows, loads, began = [], [os.getloadavg()[0]], time.monotonic()
    with Bench() as bench:
        for subject in chosen:
            print(f"{subject} …", file=sys.stderr, flush=True)
            rows += SUBJECTS[subject](bench)
            loads.append(os.getloadavg()[0])
    print_table(rows)
    noise = ", ".join(f"{load:.1f}" for load in loads)
    print(f"\n{time.monotonic() - began:.0f} s on {os.cpu_count()} cores; load average before and after each subject: {noise}.")


if __name__ == "__main__":
    main()
