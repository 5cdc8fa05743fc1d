"""Says where what two servers did with the same scenarios differs.

    compare.py EMBEDDED.json TEMPORAL.json
"""

import difflib
import json
import sys

from histories import steady


def read(path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        played = json.load(file)
    return {
        name: {"outcome": scenario["outcome"], "histories": [steady(events) for events in scenario["histories"]]}
        for name, scenario in played.items()
    }


def lines(value) -> list[str]:
    return json.dumps(value, indent=1, sort_keys=True).splitlines()


def main(embedded: str, temporal: str) -> int:
    here, there = read(embedded), read(temporal)
    differ = [name for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)]
    for name in differ:
        print(f"{name} differs:")
        for line in difflib.unified_diff(lines(there.get(name)), lines(here.get(name)), "temporal", "embedded", lineterm=""):
            print(f"  {line}")
    events = sum(len(history) for played in there.values() for history in played["histories"])
    print(f"figures: {len(there)} scenarios, {events} history events compared, {len(differ)} scenarios differ")
    return 1 if differ or not there else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
