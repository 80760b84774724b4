"""The command line: what it understands, what it prints and where, and what it returns."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from meshfd.cli import main
from meshfd.errors import RouteSyntaxError
from meshfd.exec_options import FLAGS, USAGE, VALUED, ExecUsageError, parse_exec_options
from meshfd.model import Deny, IoUring, ListeningSocket, Pass, SocketAddress, Track
from meshfd.routes import parse_route
from tests.support.command import COMMAND
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Finished, Processes, Program
from tests.support.waiting import wait_until

DEMO = Path(__file__).parent.parent / "conf" / "demo.toml"

# --- meshfd exec's options -----------------------------------------------------------------------


def test_exec_options() -> None:
    """Options are read with their values behind them or after =, in the order given."""
    words = "--route 10.0.0.1:80=127.0.0.1:8080 --deny=:25 --route :53=pass --strict --log=-"
    options = parse_exec_options(
        [*words.split(), "--track", "connect", "--listen", "web=127.0.0.1:80", "cmd", "--strict"]
    )
    assert options.routes == [
        parse_route("10.0.0.1:80=127.0.0.1:8080"),
        parse_route(":25=deny"),
        parse_route(":53=pass"),
    ]
    assert isinstance(options.routes[1].verdict, Deny)
    assert options.routes[1].verdict.errno == errno.ECONNREFUSED
    assert isinstance(options.routes[2].verdict, Pass)
    assert options.listen == [ListeningSocket("web", SocketAddress(ip_address("127.0.0.1"), 80))]
    assert (options.strict, options.track, options.log) == (True, Track.CONNECT, "-")
    assert (options.transparent, options.io_uring) == (False, IoUring.REFUSE)
    assert options.command == ["cmd", "--strict"]


def test_exec_options_of_the_filter() -> None:
    """What is asked for besides is read as well."""
    options = parse_exec_options(["--transparent", "--io-uring=allow", "cmd"])
    assert (options.transparent, options.io_uring) == (True, IoUring.ALLOW)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["cmd"], ["cmd"]),
        (["--", "cmd", "--", "-x"], ["cmd", "--", "-x"]),
        (["--strict", "--", "--odd"], ["--odd"]),
        (["-", "x"], ["-", "x"]),
        (["cmd", "--route", "nonsense"], ["cmd", "--route", "nonsense"]),
    ],
)
def test_exec_options_end_where_the_command_begins(words: list[str], command: list[str]) -> None:
    """The first word that is no option begins the command, and so does what follows --."""
    assert parse_exec_options(words).command == command


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "no command is given"),
        (["--strict"], "no command is given"),
        (["--strict", "--"], "no command is given"),
        (["--route"], "--route needs a value"),
        (["--nonsense", "cmd"], "unknown option --nonsense"),
        (["--strict=yes", "cmd"], "unknown option --strict=yes"),
        (["-x", "cmd"], "unknown option -x"),
        (["--rout", "a=b", "cmd"], "unknown option --rout"),
        (["--io-uring", "yes", "cmd"], "--io-uring is refuse or allow, not 'yes'"),
        (["--track", "sometimes", "cmd"], "--track is create or connect, not 'sometimes'"),
    ],
)
def test_wrong_exec_options(words: list[str], match: str) -> None:
    """Each mistake has its own line."""
    with pytest.raises(ExecUsageError, match=match):
        parse_exec_options(words)


def test_wrong_routes_are_errors_of_routes() -> None:
    """A route that is not one is named as such."""
    with pytest.raises(RouteSyntaxError):
        parse_exec_options(["--route", "nonsense", "cmd"])


def test_usage_tells_every_option() -> None:
    """No option of exec is missing in its help."""
    assert all(option in USAGE for option in (FLAGS | VALUED) - {"-h", "--help"})


# --- what is printed where -----------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"], ["exec", "--help"]])
def test_help_is_a_result(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help that was asked for goes to standard output, with status 0."""
    try:
        status = main(words)
    except SystemExit as end:
        status = int(str(end.code))
    captured = capsys.readouterr()
    assert status == 0
    assert captured.out.startswith("usage: meshfd")
    assert captured.err == ""


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help lists all commands."""
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    names = ["exec", "run", "check", "status", "start", "stop", "restart", "reload", "doctor"]
    assert all(f"    {name} " in out for name in names)


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`meshfd` alone shows its help as an error."""
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: meshfd")


def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is one line on standard error, and nothing on standard output."""
    monkeypatch.setenv("MESHFD_CONTROL", str(tmp_path / "nobody"))
    assert main(["status"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"meshfd: meshfd is not running: nobody answers at {tmp_path}/nobody\n"


@pytest.mark.parametrize("words", [["exec", "--nonsense", "true"], ["exec", "--route", "x", "y"]])
def test_failures_of_exec_itself_are_125(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What meshfd itself cannot do is told apart from the command's own failures."""
    assert main(words) == 125
    assert capsys.readouterr().err.startswith("meshfd: ")


def test_debug_shows_where_an_error_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --debug the error is raised, for Python to print its traceback."""
    monkeypatch.setenv("MESHFD_CONTROL", str(tmp_path / "nobody"))
    with pytest.raises(Exception, match="meshfd is not running"):
        main(["--debug", "status"])


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check says nothing of a good file, and of a bad one all faults, one a line."""
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[service.web]\ncommand = ["true"]\n')
    bad.write_text(
        '[service.web]\ncommandd = ["true"]\n[service.db]\ncommand = ["true"]\nready = 1\n'
    )
    assert main(["check", str(good)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", str(bad)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"{bad}:") for line in lines)


@pytest.mark.parametrize("module", ["trio", "msgspec", "tomli", "argparse", "json", "asyncio"])
def test_exec_imports_little(module: str) -> None:
    """`meshfd exec` starts without what only other commands need."""
    script = "import sys, meshfd.cli, meshfd.exec_options, meshfd.foreground; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert module not in done.stdout.split()


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`meshfd --help | head -0` ends without a traceback."""
    command = f"{sys.executable} -m meshfd --help | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


# --- meshfd run and those that talk to it --------------------------------------------------------


class Session:
    """A runtime directory, a configuration in it, and the commands that meet there."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.file = directory / "a.toml"
        self._processes = processes
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
        self.environment.pop("MESHFD_CONTROL", None)

    def start(
        self, text: str, *options: str, before: tuple[str, ...] = (), **keywords: object
    ) -> Program:
        """Start `meshfd run`, behind the words ``before``, and wait until it answers."""
        self.file.write_text(text)
        command = [*before, *COMMAND, "run", str(self.file), *options]
        program = self._processes.start(command, env=self.environment, **keywords)
        wait_until(lambda: self("status").code == 0, "an answer of meshfd run")
        return program

    def __call__(self, *words: str) -> Finished:
        """Run a command of meshfd's."""
        return self.run(*COMMAND, *words)

    def run(self, *command: str) -> Finished:
        """Run any command."""
        return self._processes.run(command, env=self.environment)

    def service(self, name: str) -> dict[str, object]:
        """Return the status of a service."""
        one: dict[str, object] = json.loads(self("status", "--json").out)["services"][0]
        assert one["name"] == name
        return one


@pytest.fixture
def session(tmp_path: Path, processes: Processes) -> Session:
    """Return a place for one `meshfd run`."""
    return Session(tmp_path, processes)


SLEEPER = '[service.web]\ncommand = ["sleep", "1000"]\n'


@pytest.mark.live
def test_run_and_ask(session: Session) -> None:
    """status, stop, start, restart and reload reach the one that runs; SIGTERM ends it with 0."""
    running = session.start(SLEEPER)
    wait_until(lambda: session.service("web")["ready"], "readiness")
    assert session("status").lines[0].split()[:4] == ["SERVICE", "STATE", "FOR", "PID"]
    assert session("stop", "web").code == 0
    assert session.service("web")["state"] == "stopped"
    assert session("start", "web").code == 0
    before = session.service("web")
    assert before["state"] == "running"
    assert session("restart").code == 0
    assert session.service("web")["pid"] != before["pid"]
    assert session("reload").out == "unchanged: web\n"
    unknown = session("stop", "nowhere")
    assert (unknown.code, unknown.err) == (1, "meshfd: no service is called nowhere\n")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert session("status").code == 1


@pytest.mark.live
def test_a_bad_file_is_refused_while_all_runs_on(session: Session) -> None:
    """A reload with a fault prints it, the log has it after SIGHUP, and the service runs on."""
    running = session.start(SLEEPER)
    before = wait_until(lambda: session.service("web")["pid"], "a pid")
    session.file.write_text("[service.web]\ncommand = 7\n")
    refused = session("reload")
    assert refused.code == 1
    assert refused.err.startswith(f"meshfd: {session.file}:2: service.web.command: ")
    running.signal(signal.SIGHUP)
    wait_until(lambda: f"reload refused: {session.file}:2" in running.errors(), "a line in the log")
    assert session.service("web")["pid"] == before


@pytest.mark.live
def test_a_second_run_is_told_of_the_first(session: Session) -> None:
    """Two `meshfd run` in one runtime directory are one and an error."""
    running = session.start(SLEEPER)
    second = session("run", str(session.file))
    assert second.code == 1
    assert f"meshfd already runs (pid {running.pid})" in second.err


@pytest.mark.live
def test_a_killed_run_is_in_nobodys_way(session: Session) -> None:
    """After SIGKILL of meshfd the next one starts, its leftovers notwithstanding."""
    first = session.start(SLEEPER)
    pid = wait_until(lambda: session.service("web")["pid"], "a pid")
    first.signal(signal.SIGKILL)
    first.wait()
    second = session.start(SLEEPER)
    wait_until(lambda: session.service("web")["ready"], "readiness")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the first's program")
    second.signal(signal.SIGTERM)
    assert second.wait() == 0


@pytest.mark.live
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&-", ">&-", "2>&-"])
def test_closed_standard_files_are_not_replaced_by_ours(
    closed: str, session: Session, tmp_path: Path
) -> None:
    """What a service gets for a standard file that meshfd lacks is /dev/null, nothing of ours."""
    file = tmp_path / "files"
    script = f"all=$(readlink /proc/$$/fd/[012]); echo $all >{file}.new; mv {file}.new {file}"
    service = f'[service.web]\ncommand = ["sh", "-c", "{script}; exec sleep 1000"]\n'
    running = session.start(service, before=("sh", "-c", f'exec "$@" {closed}', "sh"))
    wait_until(file.exists, "what the service has")
    links = file.read_text().split()
    assert len(links) == 3
    for link in links:
        assert link == "/dev/null" or link.startswith(("pipe:", str(tmp_path / "stderr-")))
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


@pytest.mark.live
@pytest.mark.parametrize(
    "words", ["status", "status --json", "doctor", "doctor --json", "reload", "--help", "--version"]
)
def test_output_that_cannot_be_written(words: str, session: Session) -> None:
    """A result that cannot be written is one line and status 1; a closed output is /dev/null."""
    session.start(SLEEPER)
    command = f"{sys.executable} -m meshfd {words}"
    full = session.run("sh", "-c", f"{command} >/dev/full")
    assert full.code == 1
    assert full.err == "meshfd: cannot write to standard output: No space left on device\n"
    closed = session.run("sh", "-c", f"{command} >&-")
    assert (closed.code, closed.err) == (0, "")


# Stands in for a slow import of trio, on which the test puts its finger.
SLOW_IMPORT = """
import builtins, os
plain_import = builtins.__import__
def slow_import(name, *rest, **more):
    if name == "trio" and os.path.exists({there!r}):
        open({there!r}, "w").close()
        os.unlink({there!r})
        open({go!r}).close()
    return plain_import(name, *rest, **more)
builtins.__import__ = slow_import
"""


@pytest.mark.live
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_that_come_early(
    signo: signal.Signals, session: Session, processes: Processes, tmp_path: Path
) -> None:
    """What is sent to `meshfd run` before it is up counts, and ends it in order or reloads."""
    there, go = tmp_path / "there", tmp_path / "go"
    os.mkfifo(there)
    os.mkfifo(go)
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(there=str(there), go=str(go)))
    session.file.write_text(SLEEPER)
    environment = {**session.environment, "PYTHONPATH": str(tmp_path)}
    running = processes.start([*COMMAND, "run", str(session.file)], env=environment)
    there.read_bytes()
    running.signal(signo)
    go.write_bytes(b"")
    if signo == signal.SIGHUP:
        wait_until(lambda: "reloaded: nothing has changed" in running.errors(), "the reload")
        running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert "Traceback" not in running.errors()


@pytest.mark.live
def test_the_terminals_interrupt_stops_in_order(session: Session) -> None:
    """Ctrl-C, which reaches meshfd and its agents alike, stops services as SIGTERM does."""
    script = "trap 'echo stopped in order >&2; exit' TERM; while :; do sleep 0.01; done"
    running = session.start(
        f"[service.web]\ncommand = ['sh', '-c', \"{script}\"]\n", start_new_session=True
    )
    wait_until(lambda: session.service("web")["ready"], "readiness")
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait() == 0
    assert "web: ended with status 0" in running.errors()


@pytest.mark.live
def test_ignored_signals_are_not_for_services(session: Session, tmp_path: Path) -> None:
    """What meshfd's starter had ignored a service gets as it is by default, and its end is seen."""
    file = tmp_path / "log"
    service = f"""
        [service.web]
        command = ["sh", "-c", "grep SigIgn /proc/self/status; exit 3"]
        log = "{file}"
        """
    ignoring = ("sh", "-c", "trap '' HUP INT QUIT TERM USR1 CHLD PIPE; exec \"$@\"", "sh")
    running = session.start(f"{SLEEPER.replace('web', 'other')}{service}", before=ignoring)
    wait_until(lambda: "web: ended with status 3" in running.errors(), "the end of the service")
    assert int(file.read_text().split()[1], 16) == 0
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


@pytest.mark.live
def test_the_log_for_machines(session: Session) -> None:
    """With --log-format json each line of the log is an object."""
    running = session.start(SLEEPER, "--log-format", "json")
    wait_until(lambda: session.service("web")["ready"], "readiness")
    running.signal(signal.SIGTERM)
    running.wait()
    records = [json.loads(line) for line in running.errors().splitlines()]
    assert [(one["text"], one.get("service")) for one in records][:2] == [
        ("started", "web"),
        ("ready", "web"),
    ]


@pytest.mark.live
def test_a_log_that_nobody_reads_holds_nobody_up(session: Session) -> None:
    """With standard error a full pipe, services start, and stop when asked to."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    try:
        while True:
            os.write(write_fd, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write_fd, True)
    try:
        running = session.start(SLEEPER, stderr=write_fd)
        wait_until(lambda: session.service("web")["ready"], "readiness")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    finally:
        os.close(read_fd)
        os.close(write_fd)


# --- the demo ------------------------------------------------------------------------------------


@pytest.fixture
def demo_ports() -> None:
    """Skip where somebody has the demo's ports."""
    for port in (18080, 18081, 18082):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            pytest.skip(f"port {port}, which the demo uses, is taken")


@pytest.mark.live
@pytest.mark.parametrize("ordinary", [False, True], ids=["as we are", "as an ordinary user"])
def test_the_demo(
    *, ordinary: bool, demo_ports: None, tmp_path: Path, processes: Processes
) -> None:
    """The demo ends by itself; nobody was refused, and each endpoint had half of the clients."""
    command = [*COMMAND, "run", str(DEMO)]
    tmp_path.chmod(0o777)
    done = processes.run(
        as_ordinary_user(command) if ordinary else command,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        cwd="/",
    )
    assert done.code == 0, done.err
    assert "8 of them were answered" in done.out
    assert " 0 refused" in done.out
    assert "50 by blue, 50 by green" in done.out
    assert "127.66.0.1:80 -> 127.0.0.1:18081" in done.out


@pytest.mark.live
def test_the_demo_says_when_a_port_is_taken(
    demo_ports: None, tmp_path: Path, processes: Processes
) -> None:
    """A taken port is one line that names it, and nothing has started."""
    with socket.create_server(("127.0.0.1", 18082)):
        done = processes.run(
            [*COMMAND, "run", str(DEMO)], env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        )
    assert (done.code, done.out) == (1, "")
    assert done.err == "meshfd: cannot listen on 127.0.0.1:18082: Address already in use\n"
