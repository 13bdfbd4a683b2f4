"""`python -m driftlog` is `driftlog`."""

from driftlog.cli.main import main

if __name__ == "__main__":
    main()
