"""``vbisect``, and ``python -m vbisect``: an interrupt is no traceback from the first moment on."""

import sys

try:
    from vbisect.shell import main
except KeyboardInterrupt:  # importing takes a moment
    sys.exit(130)

if __name__ == "__main__":
    main()
