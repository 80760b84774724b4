"""Decide a program's connections in Python: `python conf/decide.py`, after installing meshfd."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import trio

import meshfd


class Hello(BaseHTTPRequestHandler):
    """Something to connect to."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


CLIENT = """
import urllib.request
for host in "127.66.0.1", "127.66.0.2":
    try:
        print(urllib.request.urlopen(f"http://{host}/", timeout=10).read().decode(), end="")
    except OSError as error:
        print(error)
"""


async def main() -> None:
    """Run a client whose first connection is redirected and whose second is refused."""
    server = HTTPServer(("127.0.0.1", 0), Hello)
    Thread(target=server.serve_forever, daemon=True).start()
    hello = meshfd.parse_target(f"127.0.0.1:{server.server_port}")

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        if str(call.asked) == "127.66.0.1:80":
            return hello
        return meshfd.parse_target("deny=EHOSTUNREACH")

    async with meshfd.spawn([sys.executable, "-c", CLIENT], decide=decide) as program:
        async for event in program:
            print(event)
        print("exit code", await program.wait())
    server.shutdown()


trio.run(main)
