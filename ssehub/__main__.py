"""``python -m ssehub``: the command line."""

import sys

from ssehub.cli import main

if __name__ == "__main__":
    sys.exit(main())
