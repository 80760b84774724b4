"""Run CPython's own tests, a part of the cases in each process, and tell what became of each case.

The interpreter and its tests are Debian's (packages python3 and libpython3.11-testsuite), and the
runner is the stock one, ``python -m test``. Cases mostly wait, for a time-out of their own or for a
peer, so that many processes run at once; each is in a network namespace of its own, where no other
takes a port that it has just found free.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.alone import alone
from tests.support.need import require
from tests.support.processes import Processes

PYTHON = "/usr/bin/python3"
RUNNER = (PYTHON, "-m", "test", "--use", "network")  # sockets at all; there is no network to reach
MODULE_TIMEOUT_S = 400  # the runner then tells where it hangs, and ends
PROCESS_TIMEOUT_S = 500
N_AT_ONCE = 12
TOLD = ("error", "failure", "skipped")  # elements of a case in the report
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"}

Way = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """Modules of CPython's tests, and by how many processes their cases are performed.

    The cases of one module go to several of them or, ``whole_modules``, all to the same.
    """

    modules: tuple[str, ...]
    n_processes: int = 1
    whole_modules: bool = False


def module_of(case: str) -> str:
    """Return the module that a case is defined in: it is followed by its class and its name."""
    return case.rsplit(".", 2)[0]


def find_cases(modules: Sequence[str], left_out: Iterable[str]) -> list[str]:
    """Return the names of the modules' cases without those of some patterns (fnmatch's)."""
    ignored = [word for pattern in left_out for word in ("--ignore", pattern)]
    done = subprocess.run(
        [*RUNNER, "--list-cases", *ignored, *modules],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    require(done.returncode == 0, f"CPython's tests are not installed: {done.stderr[-500:]}")
    return [name for name in done.stdout.split() if name.startswith("test.")]


def shares_of(part: Part, left_out: Iterable[str]) -> list[list[str]]:
    """Return the cases of each process of a part."""
    cases = find_cases(part.modules, left_out)
    numbers = {module: at for at, module in enumerate(sorted(set(map(module_of, cases))))}
    shares: list[list[str]] = [[] for _ in range(part.n_processes)]
    for at, case in enumerate(cases):
        shares[(numbers[module_of(case)] if part.whole_modules else at) % len(shares)].append(case)
    return shares


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case: "passed", "skipped", "failure", "error" or "not run", and why."""

    kind: str
    reason: str = ""


NOT_RUN = Result("not run")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the cases of one process, and what it said."""

    results: Mapping[str, Result]
    said: str

    def of(self, case: str) -> Result:
        """Return what became of a case."""
        return self.results.get(case, NOT_RUN)


def _read(report: Path) -> dict[str, Result]:
    """Return the results of a report; a process that did not come to its end has left none."""
    if not report.exists():
        return {}
    results = {}
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 (we made it)
        told = next((child for child in case if child.tag in TOLD), None)
        result = Result("passed") if told is None else Result(told.tag, told.text or "")
        results[case.get("name", "")] = result
    return results


def perform(
    processes: Processes, shares: Sequence[Sequence[str]], ways: Mapping[str, Way]
) -> dict[str, list[Outcome]]:
    """Return the outcome of each share of cases in each way, from many processes at once."""
    pool = ThreadPoolExecutor(N_AT_ONCE)
    try:
        runs = [
            (name, pool.submit(_perform_share, processes, share, way))
            for share in shares
            for name, way in ways.items()
        ]
        outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
        for name, run in runs:
            outcomes[name].append(run.result())
        return outcomes
    finally:  # the owner of `processes` ends what runs on after an interruption
        pool.shutdown(wait=False, cancel_futures=True)


def _perform_share(processes: Processes, cases: Sequence[str], way: Way) -> Outcome:
    # Not pytest's directory: the path of a unix socket has to be short.
    with tempfile.TemporaryDirectory(prefix="mfd-", ignore_cleanup_errors=True) as name:
        wanted, report, output = (Path(name, word) for word in ("cases", "report", "output"))
        wanted.write_text("\n".join(cases))
        command = [
            *RUNNER,
            *("--matchfile", str(wanted), "--junit-xml", str(report)),
            *("--tempdir", name, "--timeout", str(MODULE_TIMEOUT_S)),
            *sorted(set(map(module_of, cases))),
        ]
        with output.open("wb") as out:
            program = processes.start(
                alone(way(command)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=name,
                env={**ENVIRONMENT, "TMPDIR": name},
            )
        with contextlib.suppress(subprocess.TimeoutExpired):  # there is no report then
            program.popen.wait(PROCESS_TIMEOUT_S)
        return Outcome(_read(report), output.read_text(errors="replace"))
