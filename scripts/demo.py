"""Make the environment where it is missing, then run `clinode demo` in it.

    python scripts/demo.py [DIR]

Standard library only. Arguments are passed on to `clinode demo`.
"""

import sys

import environment

if __name__ == "__main__":
    try:
        python = environment.ready_python()
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(environment.run([python, "-m", "clinode", "demo", *sys.argv[1:]]))
