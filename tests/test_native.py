"""The C code's own tests, from the same `pytest` as all others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.need import require, require_tool

NATIVE = Path(__file__).parents[1] / "native"


def make(target: str, tmp_path: Path) -> None:
    """Run ``make TARGET`` in native/, in a directory of its own where the tree is not ours."""
    require((NATIVE / "Makefile").is_file(), "there is no source tree")
    compiler = os.environ.get("CC", "cc").split()[0]
    words = [require_tool("make"), "-C", str(NATIVE), f"PYTHON={sys.executable}", target]
    words.append(f"CC={os.environ.get('CC', compiler)}")
    require_tool(compiler)
    build = NATIVE / "build"
    if not os.access(build if build.exists() else NATIVE, os.W_OK):
        words.append(f"BUILD={tmp_path}")
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"make {target}:\n{done.stdout}", pytrace=False)


def test_check(tmp_path: Path) -> None:
    """Every program of native/tests passes."""
    make("check", tmp_path)


def test_fuzz_replay(tmp_path: Path) -> None:
    """No input of native/fuzz/corpus, cut off or changed anywhere, brings a fuzz target down."""
    make("fuzz-replay", tmp_path)
