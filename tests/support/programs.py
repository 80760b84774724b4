"""Build the C test programs of tests/support/c, each once a run and variant.

A program is one file, or a directory of files that are linked together.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.need import require, require_tool

SOURCES = Path(__file__).parent / "c"
FLAGS = ("-O2", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-pthread")
VARIANTS = {
    "": (),
    "static": ("-static",),
    "i386": ("-m32",),
    "musl": ("-static",),
    "uring": ("-Wl,--no-as-needed", "-luring"),
}
COMPILERS = {"musl": "musl-gcc"}


@dataclass(slots=True)
class Programs:
    """Built programs; ``directory`` holds them and can be entered by every user."""

    directory: Path
    _built: dict[str, Path] = field(default_factory=dict)

    def __call__(self, name: str, variant: str = "") -> Path:
        """Return the path of a program, built when it is first asked for.

        A variant that the compiler cannot make here (no static library, no i386) is a missing need.
        """
        output = self.directory / (f"{name}-{variant}" if variant else name)
        if output.name not in self._built:
            self._build(_sources(name), output, VARIANTS[variant], variant)
            self._built[output.name] = output
        return output

    def _build(
        self, sources: list[Path], output: Path, flags: tuple[str, ...], variant: str
    ) -> None:
        compiler = require_tool(COMPILERS.get(variant, "cc"))
        command = [compiler, *FLAGS, *flags, *map(str, sources), "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if variant:
            require(done.returncode == 0, f"no {variant} programs can be built: {done.stderr}")
        assert done.returncode == 0, done.stderr
        output.chmod(0o755)


def _sources(name: str) -> list[Path]:
    directory = SOURCES / name
    return sorted(directory.glob("*.c")) if directory.is_dir() else [SOURCES / f"{name}.c"]
