"""`python -m geosweep.pipeline` is `geosweep`."""

from .cli import main

if __name__ == "__main__":
    main()
