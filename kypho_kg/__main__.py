"""Run the command line with ``python -m kypho_kg``."""

from kypho_kg.cli import main

if __name__ == "__main__":
    main()
