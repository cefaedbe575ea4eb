"""`python -m drakegpt` is the same program as `drakegpt`."""

from drakegpt.cli.app import main

if __name__ == "__main__":
    main()
