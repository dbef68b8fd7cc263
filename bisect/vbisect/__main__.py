"""``python -m vbisect`` is the same as ``vbisect``."""

from vbisect.shell import main

if __name__ == "__main__":
    main()
