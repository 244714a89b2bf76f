"""``python -m credx``."""

from credx.cli import main

if __name__ == "__main__":
    main()
