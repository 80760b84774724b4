"""`python -m meshfd` is the command `meshfd`."""

import sys

from meshfd.cli import main

if __name__ == "__main__":
    sys.exit(main())
