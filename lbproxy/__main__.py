"""`python -m lbproxy`: the same as the `lbproxy` command."""

import sys

from lbproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
