"""Build the Go and Java peers, each once a run, without any network."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.need import require_tool

SOURCES = Path(__file__).parent
GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off"}
# A Java that starts fast and stays small.
JAVA_OPTIONS = ("-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m")


@dataclass(slots=True)
class Builds:
    """Built peers, in ``directory``."""

    directory: Path
    _go: Path | None = None
    _java: Path | None = None

    def go(self) -> str:
        """Return the path of the Go peer, a static program."""
        if self._go is None:
            output = self.directory / "peer"
            environment = {
                **os.environ,
                **GO_ENVIRONMENT,
                "GOCACHE": str(self.directory / "go-cache"),
                "GOPATH": str(self.directory / "go-path"),
            }
            source = SOURCES / "go" / "peer.go"
            command = [require_tool("go"), "build", "-o", str(output), str(source)]
            _build(command, environment)
            self._go = output
        return str(self._go)

    def java(self, name: str = "Peer") -> list[str]:
        """Return the command of a Java peer, by its class."""
        if self._java is None:
            output = self.directory / "java"
            sources = sorted(str(source) for source in (SOURCES / "java").glob("*.java"))
            _build([require_tool("javac"), "-d", str(output), *sources], dict(os.environ))
            self._java = output
        return [require_tool("java"), *JAVA_OPTIONS, "-cp", str(self._java), name]


def _build(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
