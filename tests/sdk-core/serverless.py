"""Prints the tests that say of themselves that they use no server, as a filterset of cargo-nextest.

    serverless.py FOLDER_OF_TESTS
"""

import pathlib
import re
import sys

MARK = re.compile(r"cloud_test_exclusion\(\s*crate::CloudTestExclusionReason::DoesNotUseServer\b.*?\bfn (\w+)", re.DOTALL)


def main(folder):
    folder = pathlib.Path(folder)
    names = [
        "::".join((*path.relative_to(folder).with_suffix("").parts, name))
        for path in sorted(folder.glob("integ_tests/**/*.rs"))
        for name in MARK.findall(path.read_text(encoding="utf-8"))
    ]
    if not names:
        sys.exit("no test says that it uses no server")
    # Cases of a parametrised test stand below its name.
    print("test(/^(" + "|".join(names) + ")(::|$)/)")


if __name__ == "__main__":
    main(*sys.argv[1:])
