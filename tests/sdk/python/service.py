"""A service of a test's own, which can be killed and started again on the same data."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

import anthropic

from support import MODEL, TOOLSET, Session


class Service:
    """`steadyhand serve` on a data folder that outlives it. STEADYHAND_SDK_SERVE is the command but for its folders, with
    PROCESS for which of pytest's it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        process = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        self._command = shlex.split(os.environ["STEADYHAND_SDK_SERVE"].replace("PROCESS", process))
        self._command += ["--data", str(folder / "data"), "--hands-dir", str(folder / "hands")]
        self._clients = contextlib.ExitStack()
        # Where it was first, it is again: a worker has only one address.
        self._listen = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        with open(self._folder / "serve.log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--listen", self._listen],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), (line, (self._folder / "serve.log").read_text()[-2000:])
        address = line.removeprefix("listening on ").strip()
        self._listen = address.removeprefix("http://")
        key = (self._folder / "data" / "admin.key").read_text().strip()
        client = anthropic.Anthropic(base_url=address, api_key=key, timeout=30, max_retries=0)
        self.client = self._clients.enter_context(client)

    def stop(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        code = self._process.wait(30)
        self._process.stdout.close()
        return code

    def memory_bytes(self, kind: str = "VmRSS") -> int:
        """Of the service's own process, now; or with VmHWM at its highest."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith(f"{kind}:")]
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """Closes what clients left open: streams outlive the service that they came from."""
        self._clients.close()

    def kill(self) -> None:
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def session(self) -> Session:
        beta = self.client.beta
        agent = beta.agents.create(name="tester", model=MODEL, tools=[TOOLSET])
        environment = beta.environments.create(name="tests")
        return Session(self.client, beta.sessions.create(agent=agent.id, environment_id=environment.id))
