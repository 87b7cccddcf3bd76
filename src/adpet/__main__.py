"""``python -m adpet`` is ``adpet``."""

from adpet.cli import main

if __name__ == "__main__":
    main()
