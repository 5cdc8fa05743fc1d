"""An index for pip and a registry for npm, each with one package: LOG. Prints its port when it listens.

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


WHEEL = wheel()
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
