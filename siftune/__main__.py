"""`python -m siftune` is the `siftune` command."""

from siftune.app.cli.commands import main

if __name__ == "__main__":
    main()
