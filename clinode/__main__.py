"""`python -m clinode`, where the `clinode` script is not on the path."""

from clinode.cli import main

if __name__ == "__main__":
    main()
