"""Build what is written in C before hatchling packs a wheel.

The extension uses Python's limited API, so one wheel serves CPython 3.11 and every later version on
the same kind of machine. Both files stay in the source tree (git ignores them), which is what makes
an editable install work: after a change in native/, `make -C native` is enough.

Source: hatchling's documentation, "Custom build hook".
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARTIFACTS = ("meshfd/_engine.abi3.so", "meshfd/_libexec/meshfd-agent")


class NativeBuildHook(BuildHookInterface[Any]):
    """Run make, and say what it made and where that works."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fill ``build_data``; ``version`` is "standard" or "editable", which are built alike."""
        del version
        make = ["make", "-C", str(Path(self.root, "native")), f"-j{os.cpu_count() or 1}"]
        try:
            subprocess.run([*make, f"PYTHON={sys.executable}"], check=True)
        except FileNotFoundError:
            sys.exit("meshfd: `make` is missing: install make and a C compiler")
        except subprocess.CalledProcessError as error:
            sys.exit(f"meshfd: building the C part failed (exit status {error.returncode})")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
        build_data["artifacts"] += ARTIFACTS
