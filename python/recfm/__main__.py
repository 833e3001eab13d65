"""`python -m recfm`, and `torchrun -m recfm` for several processes."""

import sys

from recfm.cli import main

if __name__ == "__main__":
    sys.exit(main())
