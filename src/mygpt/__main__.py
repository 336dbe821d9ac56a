"""`python -m mygpt`, the same as `mygpt`."""

from mygpt.cli.main import main

if __name__ == "__main__":
    main()
