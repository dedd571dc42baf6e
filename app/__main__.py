"""`python -m app` is the `siftune` command."""

from app.cli import main

if __name__ == "__main__":
    main()
