"""`python -m recfm.cli`."""

import sys

from recfm.cli import main

if __name__ == "__main__":
    sys.exit(main())
