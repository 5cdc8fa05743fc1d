"""A tar on stdout with the official SDK, all that it needs, and SERVER (a path) as server.py beside it."""

import importlib.metadata
import pathlib
import re
import sys
import tarfile

wanted, found = ["mcp"], {}
while wanted:
    name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
    if name in found:
        continue
    try:
        found[name] = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        # For another system or an older Python.
        continue
    requires = found[name].requires or []
    wanted += [re.split(r"[ ;<>=!\[~(]", line)[0] for line in requires if "extra ==" not in line]

with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
    for distribution in found.values():
        for file in distribution.files or []:
            path = pathlib.Path(file.locate())
            if ".." not in file.parts and "__pycache__" not in file.parts and path.is_file():
                tar.add(path, str(file))
    tar.add(sys.argv[1], "server.py")
