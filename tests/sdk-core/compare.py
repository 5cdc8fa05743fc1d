"""What passes on Temporal must pass on the embedded engine, or be listed with its reason; what is listed must not pass.

    compare.py EMBEDDED.xml TEMPORAL.xml EXCEPTIONS.tsv
"""

import sys
import xml.etree.ElementTree as ET


def outcomes(path):
    """Names of tests, and whether each passed."""
    cases = ET.parse(path).getroot().iter("testcase")
    return {case.get("name"): case.find("failure") is None and case.find("error") is None for case in cases}


def second_attempts(path):
    """Names of tests that passed only when they were run again."""
    cases = ET.parse(path).getroot().iter("testcase")
    return sorted(case.get("name") for case in cases if case.find("flakyFailure") is not None)


def exceptions(path):
    with open(path, encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return {name: reason for name, reason in rows}


def main(embedded, temporal, listed):
    for where, path in (("here", embedded), ("on Temporal", temporal)):
        for name in second_attempts(path):
            print(f"passed {where} at the second attempt: {name}")
    here, there, listed = outcomes(embedded), outcomes(temporal), exceptions(listed)
    missing = sorted(name for name, passed in there.items() if passed and not here.get(name))
    unlisted = [name for name in missing if name not in listed]
    for name in unlisted:
        print(f"fails here and passes on Temporal: {name}")
    stale = sorted(name for name in listed if here.get(name))
    for name in stale:
        print(f"is listed as an exception and passes: {name}")
    unknown = sorted(name for name in listed if name not in there) if len(there) > len(listed) else []
    for name in unknown:
        print(f"is listed as an exception and is no test: {name}")
    figures = (len(there), sum(there.values()), sum(here.values()), len(missing))
    print("figures: %d tests, %d pass on Temporal, %d here; %d pass on Temporal alone" % figures)
    return 1 if unlisted or stale or unknown else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
