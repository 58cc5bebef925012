"""Whether the tests notice: the code is broken on purpose, one promise at a time, and the suite has to turn red (`make mutants`).

A mutant is a small replacement of text in a temporary copy of the checkout (`mutants.py`); if the text is not found, this fails
loudly, so the list keeps up with the code. For each, the tests named for it run first, then the fast part of the suite
(`tests/shared`, `tests/federation`), until one fails. Before that the same tests must be green without any mutant.

    python -m tests.mutants [name …]        # all, or those whose names hold one of these words

Prints which test caught which mutant. The exit code is 1 if one survived, 2 if the suite is red by itself.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".venv", ".git", "var", "__pycache__", ".hypothesis", ".*_cache", "node_modules")
FAST = (
    *("tests/shared", "tests/federation", "-k", "not servers and not postgresql"),
    *("--ignore=tests/shared/test_bus.py", "--ignore=tests/federation/test_couriers.py"),  # they wait for a broker
)
AT_ONCE = min(4, os.cpu_count() or 1)
PATIENCE = 300
"""Seconds that one run of tests may take; a mutant that hangs is caught too."""


def changed(mutant: Mutant) -> str:
    """The file with the mutant in it. Raises `LookupError` if its text is not there exactly once."""
    text = (ROOT / mutant.file).read_text()
    for old, new in mutant.changes:
        if text.count(old) != 1:
            msg = f"{mutant.name}: {text.count(old)} times in {mutant.file}, and not once:\n{old}"
            raise LookupError(msg)
        text = text.replace(old, new)
    return text


def copy_with(mutant: Mutant | None, place: Path) -> Path:
    """The checkout, with the mutant in it."""
    copy = place / (re.sub(r"\W+", "-", mutant.name) if mutant else "whole")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    if mutant:
        (copy / mutant.file).write_text(changed(mutant))
    return copy


def red_test(copy: Path, *words: str) -> str:
    """The first test that fails; "" if all pass."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        "--hypothesis-seed=0",
    ]
    try:
        done = subprocess.run(
            [*command, *words], cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"no end within {PATIENCE} s"
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - |$)", done.stdout, re.MULTILINE)
    return found[1] if found else f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}"


def runs_for(mutant: Mutant) -> list[tuple[str, ...]]:
    """What to run against it, in this order."""
    return [*(tuple(run.split("|")) for run in mutant.first), FAST]


def try_out(mutant: Mutant, place: Path) -> tuple[str, float]:
    """Which test caught it ("" if none did), and in how many seconds."""
    begun = time.monotonic()
    copy = copy_with(mutant, place)
    caught = next(filter(None, (red_test(copy, *run) for run in runs_for(mutant))), "")
    shutil.rmtree(copy, ignore_errors=True)
    return caught, time.monotonic() - begun


def main(wanted: list[str]) -> int:
    begun = time.monotonic()
    mutants = [mutant for mutant in MUTANTS if not wanted or any(word in mutant.name for word in wanted)]
    with tempfile.TemporaryDirectory(prefix="tuinkoepel-mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as hands:
        place = Path(folder)
        for mutant in mutants:  # before anything runs: does every text still stand where it should?
            changed(mutant)
        whole = copy_with(None, place)
        runs = sorted({run for mutant in mutants for run in runs_for(mutant)})
        for red in hands.map(lambda run: red_test(whole, *run), runs):
            if red:
                print(f"The suite is red without any mutant: {red}")
                return 2
        print(f"green without a mutant ({time.monotonic() - begun:.0f} s)\n\n| mutant | caught by | s |\n|---|---|--:|", flush=True)
        survivors = 0
        for mutant, (caught, seconds) in zip(mutants, hands.map(lambda mutant: try_out(mutant, place), mutants), strict=True):
            survivors += not caught
            print(f"| {mutant.name} | {caught or '**nothing: it survived**'} | {seconds:.0f} |", flush=True)
    print(f"\n{len(mutants) - survivors} of {len(mutants)} mutants were caught, in {time.monotonic() - begun:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
