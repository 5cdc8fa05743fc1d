"""The conformance checks by number, and the tests that show each: made of what the suites of `scripts/sdk` reported, and never
of what they were meant to do.

    checks.py TABLE FOLDER...           whether TABLE says what happened in every FOLDER
    checks.py --write TABLE FOLDER...   writes it

A FOLDER has the reports of one engine: python.xml and typescript.xml. Fails where a check has no test, a test was skipped or
failed, or an engine has other tests than the first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

SUITES = ("python", "typescript")
# What the checks that have no test yet say of it.
LATER = "later:"

Shown = dict[int, set[str]]


def numbers(suite: str, name: str) -> list[int]:
    """As in `test_75_76_a_call...`, and in `75, 76: a call...`."""
    pattern = r"test((?:_\d+)+)_" if suite == "python" else r"(\d+(?:, \d+)*):"
    found = re.match(pattern, name)
    return [int(number) for number in re.findall(r"\d+", found.group(1))] if found else []


def shown(folder: Path, problems: list[str]) -> Shown:
    """The tests that passed, by check."""
    tests: Shown = {}
    for suite in SUITES:
        for case in ElementTree.parse(folder / f"{suite}.xml").getroot().iter("testcase"):
            name = case.get("name", "").split("[")[0]
            for outcome in ("failure", "error", "skipped"):
                if case.find(outcome) is not None:
                    problems.append(f"{folder.name}: {suite}: {name}: {outcome}")
            for number in numbers(suite, name):
                tests.setdefault(number, set()).add(f"{suite}: `{name}`")
    return tests


def table(tests: Shown, problems: list[str]) -> str:
    lines = [
        "# The conformance checks",
        "",
        "Each is shown through the official SDKs, unmodified, on the embedded engine and on Temporal. Written by `scripts/sdk --write`",
        "from the reports of its suites, and compared with them by every run of `scripts/sdk`.",
        "",
        "| | Check | Shown by |",
        "|---|---|---|",
    ]
    for line in Path(__file__).with_name("checks.tsv").read_text().splitlines()[1:]:
        number, what, note = line.split("\t")
        by = sorted(tests.pop(int(number), ()))
        if not by and not note.startswith(LATER):
            problems.append(f"check {number} has no test: {what}")
        lines.append(f"| {number} | {what} | {'<br>'.join(by + [note] if note else by)} |")
    problems += [f"there is no check {number}: {', '.join(names)}" for number, names in tests.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    writes = arguments[0] == "--write"
    path, *folders = map(Path, arguments[writes:])
    problems: list[str] = []
    first, *others = (shown(folder, problems) for folder in folders)
    for folder, tests in zip(folders[1:], others, strict=True):
        if tests != first:
            differing = sorted(number for number in {*tests, *first} if tests.get(number) != first.get(number))
            problems.append(f"{folder.name} has other tests than {folders[0].name}, of checks {differing}")
    count = sum(map(len, first.values()))
    made = table(dict(first), problems)
    if writes:
        path.write_text(made)
    elif not path.exists() or path.read_text() != made:
        problems.append(f"{path} says something else: scripts/sdk --write")
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{count} tests of numbered checks on {len(folders)} engines, each check shown on each")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
