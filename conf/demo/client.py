"""A client that knows nothing of meshfd: python3 client.py ADDRESS PORT COUNT.

Fetches / that often, each time over a new connection, and prints as JSON the answers and how many
nanoseconds each socket() and connect() took.
"""

import json
import socket
import sys
import time


def fetch(address: str, port: int) -> tuple[str, int]:
    """One request: the answer's body, and what connecting cost in nanoseconds."""
    began_ns = time.perf_counter_ns()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.connect((address, port))
        cost_ns = time.perf_counter_ns() - began_ns
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as reader:
            answer = reader.read()
    return answer.rpartition(b"\r\n\r\n")[2].decode(), cost_ns


def main() -> None:
    """Fetch and print."""
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = [fetch(address, port) for _ in range(count)]
    record = {"bodies": [body for body, _ in answers], "connect_ns": [cost for _, cost in answers]}
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
