"""Which module may import which: the rows that keep meshfd in layers.

A module imports only from rows above its own, as the list below has them; a new module must be
given a row. Imports for annotations alone (``if TYPE_CHECKING:``) do not count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshfd
from tests.support.command import Meshfd
from tests.support.need import require

PACKAGE = Path(meshfd.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

PURE_ROWS = (
    {"records"},
    {"errors"},
    {
        "histogram",
        "logs",
        "model",
        "program",
        "sparing",
        "socket_table",
        "standard_files",
        "system_calls",
        "table",
        "toml_lines",
        "wording",
    },
    {
        "cgroup_paths",
        "durations",
        "env_file",
        "events",
        "features",
        "identity",
        "netns",
        "order",
        "probes",
        "rlimits",
        "protocol",
        "restart",
        "routes",
        "runtime_dir",
        "toml_tables",
        "turns",
    },
    {"cgroup_controllers", "cgroup_limits", "fd_limit", "netns_plan"},
    {"changes", "client", "config_keys", "exec_options", "launch", "redirects", "service"},
    {"netns_keys"},
    {"config"},
)
"""Neither trio nor the C extension."""

ROWS = (
    *PURE_ROWS,
    {"engine"},
    {"channel", "helper", "route_table"},
    {"agent_process"},
    {
        "agent",
        "cgroups",
        "doctor",
        "foreground",
        "namespaces",
        "netns_setup",
        "pulse",
        "socket_scan",
    },
    {"connections", "control", "library", "reload", "report", "runner"},
    {"lifecycle"},
    {"fleet"},
    {"supervisor"},
    {"cli_options"},
    {"cli"},
    {"__main__"},
)
PURE = sorted(set[str]().union(*PURE_ROWS))
ROW_OF = {module: row for row, modules in enumerate(ROWS) for module in modules}

# What `meshfd exec` has no time for: the import of each takes longer than most of its own modules.
SLOW = {
    "argparse",
    "asyncio",
    "dataclasses",
    "inspect",
    "json",
    "mmap",
    "msgspec",
    "pathlib",
    "socket",
    "subprocess",
    "tomli",
    "trio",
    "typing",
    "urllib",
}
# What only routes and listening sockets on its command line need.
FOR_ROUTES = {"meshfd.routes", "meshfd.route_table", "meshfd.wording", "re"}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that code imports when it runs, in full, wherever the import stands."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                assert level == 0, "imports are absolute"
                assert module is not None
                yield module
                # `from meshfd import engine` imports a module, too
                yield from (f"{module}.{alias.name}" for alias in names if module == "meshfd")
        if _is_for_types(node):
            assert isinstance(node, ast.If)
            for other in node.orelse:
                yield from imports_of(other)
        else:
            yield from imports_of(node)


def parse(module: str) -> ast.AST:
    """Return a module of the package as a tree."""
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def own_imports(module: str) -> set[str]:
    """Return the names of the package's modules that a module imports."""
    parts = [name.split(".") for name in imports_of(parse(module))]
    return {part[1] for part in parts if part[0] == "meshfd" and len(part) > 1}


def imported_by(*words: str) -> set[str]:
    """Run Python; return what it imported, by its own account, all packages' names in full."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))


def imported_by_exec(*words: str) -> set[str]:
    """Return what `meshfd exec` imported; not by -m, which has imports of its own."""
    return imported_by(
        "-c", "import sys; from meshfd.cli import main; sys.exit(main())", "exec", *words
    )


def test_every_module_has_a_row() -> None:
    """The rows name each module once, and none that is gone."""
    assert sum(map(len, ROWS)) == len(ROW_OF)
    assert sorted(ROW_OF) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_up(module: str) -> None:
    """A module imports from rows above its own alone."""
    wrong = {
        name for name in own_imports(module) if name in ROW_OF and ROW_OF[name] >= ROW_OF[module]
    }
    assert not wrong


def test_the_engine_alone_imports_the_extension() -> None:
    """Layouts shared with C are the engine's secret."""
    assert [one for one in MODULES if "_engine" in own_imports(one)] == ["engine"]
    mentions = [
        one
        for one in MODULES
        if re.search(r"\b_engine\b", (PACKAGE / f"{one}.py").read_text(encoding="utf-8"))
    ]
    assert mentions == ["engine"]


def test_the_package_imports_nothing_before_it_is_asked() -> None:
    """`import meshfd` costs next to nothing: its names come when they are first used."""
    assert list(imports_of(parse("__init__"))) != []
    assert {name.split(".")[0] for name in imports_of(parse("__init__"))} <= sys.stdlib_module_names


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_import_neither_trio_nor_the_engine(module: str) -> None:
    """What only computes can be used, and tested, without an event loop or C code."""
    outside = {name.split(".")[0] for name in imports_of(parse(module))}
    assert not outside & {"trio", "cffi", "_cffi_backend"}
    assert not own_imports(module) & {"engine", "_engine"}


def test_pure_modules_do_not_import_them_by_another_either() -> None:
    """All pure modules together, imported for real, bring neither trio nor the engine."""
    imported = imported_by("-c", "".join(f"import meshfd.{module}\n" for module in PURE))
    assert "meshfd.config" in imported
    assert not imported & {"trio", "meshfd.engine", "meshfd._engine", "_cffi_backend"}


def test_exec_imports_nothing_slow(meshfd: Meshfd) -> None:
    """`meshfd exec` starts a program without importing what takes long, or is not needed then."""
    meshfd.need()
    require((PACKAGE / "_libexec" / "meshfd-agent").exists(), "the agent is not built")
    imported = imported_by_exec("--", "true")
    assert "meshfd.foreground" in imported
    assert not {name.split(".")[0] for name in imported} & SLOW
    assert not imported & FOR_ROUTES


def test_exec_with_routes_imports_little_more(meshfd: Meshfd) -> None:
    """Routes and listening sockets have it import what reads and counts them."""
    meshfd.need()
    require((PACKAGE / "_libexec" / "meshfd-agent").exists(), "the agent is not built")
    options = ("--route", "127.66.0.1:80=127.0.0.1:1", "--deny", "udp::53", "--", "true")
    imported = imported_by_exec(*options)
    assert imported >= FOR_ROUTES
    assert {name.split(".")[0] for name in imported} & SLOW == {"mmap"}
