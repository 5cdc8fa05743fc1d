"""An index for pip, a registry for npm and a mirror for apt, each with one package that greets: LOG. Prints its port when it listens.

On 127.0.0.2, which no package manager takes for the sandbox's own loopback. A line in LOG for every request.
"""

import base64
import hashlib
import http.server
import io
import json
import sys
import tarfile
import zipfile

log = sys.argv[1]


def wheel():
    info = "greeting_py-1.0.dist-info"
    files = {
        "greeting_py.py": "word = 'hello from pip'\n\n\ndef main():\n    print(word)\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeting-py\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreeting-py = greeting_py:main\n",
    }
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


def tarball():
    manifest = {"name": "greeting-js", "version": "1.0.0", "bin": {"greeting-js": "main.js"}, "main": "index.js"}
    files = {
        "package/package.json": json.dumps(manifest),
        "package/index.js": "exports.word = 'hello from npm';\n",
        "package/main.js": "#!/usr/bin/env node\nconsole.log(require('./index.js').word);\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    return manifest, packed.getvalue()


def tar(files, links):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
        for name, to in links.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            archive.addfile(entry)
    return packed.getvalue()


def deb(control, files, links):
    """An ar archive of three members."""
    whole = b"!<arch>\n"
    members = {"debian-binary": b"2.0\n", "control.tar.gz": tar({"control": control}, {}), "data.tar.gz": tar(files, links)}
    for name, data in members.items():
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        whole += data + b"\n" * (len(data) % 2)
    return whole


def mirror():
    """One package and what it depends on, for every release of Debian or Ubuntu."""
    head = "Version: 1.0\nArchitecture: all\nMaintainer: t <t@test>\nDescription: greets\n"
    packages = {
        "greeting-apt": (
            f"Package: greeting-apt\nDepends: greeting-data, libc6\n{head}",
            {"usr/bin/greet-apt": '#!/bin/sh\ncat "$(dirname "$0")/../share/greeting/word"\n',
             "usr/lib/python3/dist-packages/greeting_apt.py": "word = 'hello from apt'\n"},
            {"usr/bin/greeting-apt": "/usr/bin/greet-apt"},
        ),
        "greeting-data": (f"Package: greeting-data\n{head}", {"usr/share/greeting/word": "hello from apt\n"}, {}),
    }
    index, answers = "", {}
    for name, (control, files, links) in packages.items():
        data = deb(control, files, links)
        path = f"pool/{name}_1.0_all.deb"
        answers[f"/debian/{path}"] = ("application/octet-stream", data)
        index += f"{control}Filename: {path}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    lists = {"main": index, "universe": ""}
    release = "Origin: test\nArchitectures: amd64 arm64\nComponents: main universe\nSHA256:\n"
    indexes = {}
    for part, text in lists.items():
        for arch in ("amd64", "arm64"):
            release += f" {hashlib.sha256(text.encode()).hexdigest()} {len(text)} {part}/binary-{arch}/Packages\n"
            indexes[f"{part}/binary-{arch}/Packages"] = text
    return answers, {"Release": release, **indexes}


WHEEL = wheel()
POOL, LISTS = mirror()
MANIFEST, TARBALL = tarball()


class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        base = f"http://127.0.0.2:{server.server_port}"
        dist = {
            "tarball": f"{base}/greeting-js/-/greeting-js-1.0.0.tgz",
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(TARBALL).digest()).decode(),
        }
        document = {
            "name": "greeting-js",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": {**MANIFEST, "dist": dist}},
        }
        link = f'<a href="{base}/files/greeting_py-1.0-py3-none-any.whl">greeting_py-1.0-py3-none-any.whl</a>'
        answers = {
            "/simple/greeting-py/": ("text/html", link.encode()),
            "/files/greeting_py-1.0-py3-none-any.whl": ("application/octet-stream", WHEEL),
            "/greeting-js": ("application/json", json.dumps(document).encode()),
            "/greeting-js/-/greeting-js-1.0.0.tgz": ("application/octet-stream", TARBALL),
        }
        answers.update(POOL)
        dists = self.path.split("/", 4)
        if dists[1:3] == ["debian", "dists"] and dists[4] in LISTS:
            # Of whichever release the machine is.
            answers[self.path] = ("text/plain", LISTS[dists[4]].encode())
        kind, body = answers.get(self.path, (None, b""))
        with open(log, "a") as file:
            file.write(f"{self.path}\n")
        self.send_response(200 if kind else 404)
        self.send_header("content-type", kind or "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
