"""``python -I -S …/scheduler/supervisor RUN_FOLDER``: supervise the run, or collect what a dead supervisor left."""

import os
import sys

if __name__ == "__main__":
    # With -I and -S only the standard library is on the path, and a dotted name cannot be imported. The folder above
    # holds this package; it goes last, so that nothing in it can stand in for a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    from supervisor.launch import main  # type: ignore[import-not-found]

    main(sys.argv)
