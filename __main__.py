"""`python -m mopo_bench` is the command `mopo-bench`."""

from .harness.cli.main import main

if __name__ == "__main__":
    main()
