"""A BPF program of a cgroup that redirects connect(), which is how some meshes do without iptables.

Theory of operation: the kernel runs the program inside each connect() of the cgroup's processes;
it writes another destination. c/redirect_bpf.c attaches it, and lives as long as it is needed. The
cgroup is made for that. Source: bpf(2).
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Final

from tests.bench.errors import BenchError, MissingError
from tests.bench.part import Stage
from tests.bench.peers.need import need_root, skips_as_missing
from tests.bench.programs import SERVER_ADDRESS, VIRTUAL_ADDRESS
from tests.bench.ways import Way
from tests.support.cgroups import new_place

BPF: Final = "cgroup BPF"
ATTACHED: Final = "attached\n"
PERMISSIONS: Final = ("Operation not permitted", "Permission denied", "Function not implemented")


@contextlib.contextmanager
def redirected(stage: Stage, port: int) -> Iterator[Way]:
    """Redirect connections to the virtual address.

    Raises:
        MissingError: no root, no cgroup v2, or no BPF for us.

    """
    need_root()
    with contextlib.ExitStack() as stack:
        with skips_as_missing():
            cgroup = stack.enter_context(new_place())
        command = [stage.directory / "redirect_bpf", cgroup.directory]
        attaching = stack.enter_context(
            subprocess.Popen(
                [*command, VIRTUAL_ADDRESS, SERVER_ADDRESS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        assert attaching.stdin is not None
        assert attaching.stdout is not None
        stack.callback(attaching.stdin.close)  # which ends it
        if attaching.stdout.readline() != ATTACHED:
            assert attaching.stderr is not None
            said = attaching.stderr.read().strip()
            raise (MissingError if said.endswith(PERMISSIONS) else BenchError)(said)
        yield Way(tuple(cgroup.prefix), VIRTUAL_ADDRESS, port)
