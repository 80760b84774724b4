"""Write the C source of the extension `meshfd._engine`.

Usage: build_engine.py OUTPUT.c; called by the Makefile, which compiles what this writes.

Theory of operation: the two headers that Python sees are the single source. Each holds one part
between ``/* cdef begin */`` and ``/* cdef end */`` that is plain enough for cffi's parser (structs
of fixed-width integers, enums, #defines of integers, prototypes); wire.h gives the structs and
engine.h the functions. cffi runs in API mode, so the C compiler checks every size and offset
against the headers themselves, and a mistake here cannot become a wrong layout.

Source: cffi's documentation, "Preparing and distributing modules" (ffibuilder.emit_c_code).
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import cffi

NATIVE = Path(__file__).parent
HEADERS = ("wire.h", "engine.h")
MARKED = re.compile(r"^/\* cdef begin \*/$(.*?)^/\* cdef end \*/$", re.DOTALL | re.MULTILINE)


def read_cdef(header: Path) -> str:
    """Return the part of ``header`` that is meant for cffi; ValueError unless there is one."""
    parts = MARKED.findall(header.read_text(encoding="utf-8"))
    if len(parts) != 1:
        message = f"{header}: {len(parts)} parts are marked `cdef begin` .. `cdef end`, not one"
        raise ValueError(message)
    return str(parts[0])


def main() -> None:
    """Write the extension's source to the file named by the first argument."""
    python_h = Path(sysconfig.get_path("include"), "Python.h")
    if not python_h.exists():
        sys.exit(f"meshfd: {python_h} is missing: install Python's headers (Debian: python3-dev)")
    builder = cffi.FFI()
    for name in HEADERS:
        builder.cdef(read_cdef(NATIVE / name))
    builder.set_source("meshfd._engine", "".join(f'#include "{name}"\n' for name in HEADERS))
    builder.emit_c_code(sys.argv[1])


if __name__ == "__main__":
    main()
