"""Runs every client scenario of MCP's conformance suite: NODE SUITE OUT [SCENARIO ...]. What comes of each is compared with
scenarios.tsv, which says of those that do not pass why; one that is not in it, or passes although it is said not to, is as
wrong as one that fails. `either` is for what depends on who comes first.
"""

from __future__ import annotations

import concurrent.futures
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
AT_A_TIME = 2
TIMEOUT_MS = 60_000


def scenarios(suite: list[str]) -> list[str]:
    said = subprocess.run([*suite, "list", "--client"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"^  - (\S+)", said, re.MULTILINE)


def expected() -> dict[str, tuple[str, str]]:
    with open(HERE / "scenarios.tsv", newline="") as file:
        return {row["scenario"]: (row["outcome"], row["why"]) for row in csv.DictReader(file, delimiter="\t")}


def play(suite: list[str], out: Path, scenario: str) -> tuple[bool, str]:
    """Whether it passed, and which checks did not."""
    folder = out / scenario.replace("/", "-")
    client = f"{sys.executable} -B {HERE / 'client.py'}"
    options = ["--scenario", scenario, "--timeout", str(TIMEOUT_MS), "-o", str(folder)]
    ran = subprocess.run([*suite, "client", "--command", client, *options], capture_output=True, text=True, check=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "said.txt").write_text(ran.stdout + ran.stderr)
    failed = []
    for checks in folder.rglob("checks.json"):
        failed += [check["id"] for check in json.loads(checks.read_text()) if check["status"] in ("FAILURE", "WARNING")]
    return ran.returncode == 0, ", ".join(failed)


def main() -> int:
    node, program, out, *only = sys.argv[1:]
    suite = [node, program]
    known, begin, wrong = expected(), time.monotonic(), 0
    found = scenarios(suite)
    for scenario in sorted(known.keys() - set(found)):
        print(f"{scenario}: the suite does not know it")
        wrong += 1
    wanted = [scenario for scenario in found if not only or scenario in only]
    passed = 0
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        played = pool.map(lambda scenario: play(suite, Path(out), scenario), wanted)
        for scenario, (is_passed, failed) in zip(wanted, played, strict=True):
            outcome = "pass" if is_passed else "fail"
            should, why = known.get(scenario, ("pass", ""))
            as_expected = should in (outcome, "either")
            passed += is_passed
            wrong += not as_expected
            mark = "" if as_expected else "  <- UNEXPECTED"
            print(f"{outcome}  {scenario}  {failed}{'  (' + why + ')' if why else ''}{mark}", flush=True)
    took = time.monotonic() - begin
    print(f"== figures: {passed} of {len(wanted)} scenarios passed in {took:.0f} s, {wrong} not as scenarios.tsv says")
    return 1 if wrong else 0


sys.exit(main())
