"""A self-signed certificate for the tests' addresses, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.command import VIRTUAL
from tests.support.need import require_tool
from tests.support.services import HOST

SUBJECT: Final = "/CN=meshfd-test"
# Of the PKCS 12 store, which Java does not open without.
PASSWORD: Final = "meshfd-test"  # noqa: S105 -- it guards nothing
N_DAYS: Final = "2"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that is its own authority, its key, and both in a PKCS 12 store."""

    cert: Path
    key: Path
    store: Path

    def copy_key(self, directory: Path, user: int | None = None) -> Path:
        """Return a copy of the key that ``user`` alone can read."""
        copy = directory / "key.pem"
        shutil.copyfile(self.key, copy)
        copy.chmod(0o600)
        if user is not None:
            shutil.chown(copy, user)
        return copy


def make_certificate(directory: Path) -> Certificate:
    """Make one that is good for a day, for a server at our address and at the virtual one."""
    openssl = require_tool("openssl")
    made = Certificate(directory / "cert.pem", directory / "key.pem", directory / "store.p12")
    names = f"subjectAltName=IP:{HOST},IP:{VIRTUAL}"
    request = [openssl, "req", "-x509", "-nodes", "-newkey", "ec"]
    request += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", N_DAYS, "-subj", SUBJECT]
    request += ["-addext", names, "-keyout", str(made.key), "-out", str(made.cert)]
    export = [openssl, "pkcs12", "-export", "-passout", f"pass:{PASSWORD}"]
    export += ["-in", str(made.cert), "-inkey", str(made.key), "-out", str(made.store)]
    for command in (request, export):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return made
