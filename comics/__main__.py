"""``python -m comics`` is the ``comics`` command."""

from comics.cli import main

if __name__ == "__main__":
    main()
