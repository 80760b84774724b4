"""The tour of conf/demo.toml: plays the clients, counts, and prints what happened.

It talks to meshfd as `meshfd status` and `meshfd start` do, over the control socket, whose path
meshfd leaves in MESHFD_CONTROL: one line of JSON each way.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

WEB = ("127.0.0.1", 18080)
VIRTUAL = ("127.66.0.1", 80)
DIRECT = ("127.0.0.1", 18081)
N_WAITING = 8
N_LOAD_THREADS = 4
N_ANSWERS_AROUND_KILL = 40
N_CLIENTS = 2
N_CONNECTIONS = 50
PATIENCE_S = 20.0

Record = dict[str, Any]


def ask_meshfd(command: str, *names: str) -> Record:
    """What `meshfd COMMAND NAME...` does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(PATIENCE_S)
        control.connect(os.environ["MESHFD_CONTROL"])
        control.sendall(json.dumps({"v": 1, "do": command, "names": names}).encode() + b"\n")
        with control.makefile("rb") as reader:
            answer: Record = json.loads(reader.readline())
    if not answer["ok"]:
        sys.exit(f"tour: meshfd {command}: {answer['error']}")
    result: Record = answer["result"]
    return result


def status_of(name: str) -> Record:
    """One service's part of `meshfd status --json`."""
    services: list[Record] = ask_meshfd("status", name)["services"]
    return services[0]


def connect_to_web() -> socket.socket:
    """A connection with its request sent: it waits in the queue until somebody accepts it."""
    connection = socket.create_connection(WEB, PATIENCE_S)
    connection.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
    return connection


def read_answer(connection: socket.socket) -> str:
    """How it went: "answered", or "cut off" where the daemon was killed while it served us."""
    with connection:
        try:
            data = b"".join(iter(lambda: connection.recv(4096), b""))
        except ConnectionResetError:
            return "cut off"
    return "answered" if b"200 OK" in data and data.endswith(b"meshfd.\n") else "cut off"


class Load:
    """Clients that come all the time; ``outcomes`` counts how it went for each."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._progress = threading.Condition()
        self._ending = False
        self._threads = [threading.Thread(target=self._come) for _ in range(N_LOAD_THREADS)]
        for thread in self._threads:
            thread.start()

    def wait_for_answers(self, count: int) -> None:
        """Wait until this many more clients were answered."""
        with self._progress:
            goal = self.outcomes["answered"] + count
            if not self._progress.wait_for(lambda: self.outcomes["answered"] >= goal, PATIENCE_S):
                sys.exit(f"tour: the web server has stopped answering: {dict(self.outcomes)}")

    def end(self) -> None:
        """Let the last clients be served."""
        self._ending = True
        for thread in self._threads:
            thread.join()

    def _come(self) -> None:
        while not self._ending:
            try:
                outcome = read_answer(connect_to_web())
            except ConnectionRefusedError:
                outcome = "refused"
            except OSError as error:
                outcome = f"failed: {error}"
            with self._progress:
                self.outcomes[outcome] += 1
                self._progress.notify_all()


def show_early_clients() -> None:
    """Clients connect, and only then the daemon starts."""
    waiting = [connect_to_web() for _ in range(N_WAITING)]
    state = status_of("web")["state"]
    ask_meshfd("start", "web")
    outcomes = Counter(map(read_answer, waiting))
    print("1. A daemon that knows nothing of socket activation (python3 -m http.server)")
    print(f"   {len(waiting)} clients connected while it was {state}; then it was started.")
    print(f"   {outcomes['answered']} of them were answered.")


def show_restart() -> None:
    """The daemon is killed while clients come."""
    load = Load()
    load.wait_for_answers(N_ANSWERS_AROUND_KILL)
    before = status_of("web")
    os.kill(before["pid"], signal.SIGKILL)
    deadline_s = time.monotonic() + PATIENCE_S
    while not ((after := status_of("web"))["restarts"] > before["restarts"] and after["ready"]):
        if time.monotonic() > deadline_s:
            sys.exit("tour: the web server was not restarted")
        time.sleep(0.01)
    load.wait_for_answers(N_ANSWERS_AROUND_KILL)
    load.end()
    handed = after["listening"][0]["handed"]
    print("2. The daemon is killed (SIGKILL) while clients keep coming, and restarted by meshfd")
    print(f"   pid {before['pid']} -> {after['pid']}; its socket was handed over {handed} times.")
    print(f"   {load.outcomes.total()} clients: {load.outcomes['answered']} answered", end="")
    print(f", {load.outcomes['refused']} refused", end="")
    # What the dead daemon had accepted died with it; no supervisor can bring that back.
    print(f", {load.outcomes['cut off']} cut off with what the killed daemon had accepted.")
    others = load.outcomes.total() - sum(
        load.outcomes[outcome] for outcome in ("answered", "refused", "cut off")
    )
    if others or load.outcomes["refused"]:
        sys.exit(f"tour: that should not have happened: {dict(load.outcomes)}")


def run_client(address: tuple[str, int]) -> Record:
    """Run the client program and read what it prints."""
    command = ["python3", "client.py", address[0], str(address[1]), str(N_CONNECTIONS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=PATIENCE_S)
    record: Record = json.loads(done.stdout)
    return record


def show_redirects() -> None:
    """Client programs reach an address that nobody listens on."""
    runs = [run_client(VIRTUAL) for _ in range(N_CLIENTS)]
    direct = run_client(DIRECT)
    bodies = Counter(body for run in runs for body in run["bodies"])
    virtual_us = statistics.median(cost for run in runs for cost in run["connect_ns"]) / 1e3
    direct_us = statistics.median(direct["connect_ns"]) / 1e3
    connections = status_of("tour")["connections"]
    print(
        f"3. {N_CLIENTS} client programs connect to {VIRTUAL[0]}:{VIRTUAL[1]}, where nobody listens"
    )
    print(f"   {bodies.total()} requests were answered: ", end="")
    print(", ".join(f"{count} by {name}" for name, count in sorted(bodies.items())) + ".")
    print("   What meshfd has counted:")
    for row in connections["redirects"]:
        print(f"     {row['asked']} -> {row['given']:<16} {row['count']:4} connections")
    agent_us = connections["connect_p50_ns"] / 1e3
    print("   What a connection costs (median):")
    print(f"     {virtual_us:6.1f} us  socket() and connect() in the client, redirected")
    print(f"     {direct_us:6.1f} us  the same, to an endpoint's own address")
    print(f"     {agent_us:6.1f} us  in the agent, per redirected connect() (a coarse histogram)")
    print("   After that nothing is in between: the sockets are the programs' own.")


def main() -> None:
    """The whole tour."""
    began_s = time.monotonic()
    show_early_clients()
    show_restart()
    show_redirects()
    print(f"That was meshfd, in {time.monotonic() - began_s:.1f} s.", flush=True)


if __name__ == "__main__":
    main()
