"""`python -m receiver` is the `reelhook` command."""

from receiver.cli import main

main()
