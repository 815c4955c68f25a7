"""``python -I -S …/scheduler/supervisor RUN_FOLDER``: supervise the run, or collect what a dead supervisor left.

With ``--archive JOB_FOLDER`` instead: build the ZIP of a run's files. With ``--ask JOB_FOLDER``: ask a program which
arguments it takes.
"""

import os
import sys

if __name__ == "__main__":
    # With -I and -S only the standard library is on the path, and a dotted name cannot be imported. The folder above
    # holds this package; it goes last, so that nothing in it can stand in for a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    if sys.argv[1] == "--archive":
        from supervisor import archive  # type: ignore[import-not-found]

        archive.main(sys.argv[2])
    elif sys.argv[1] == "--ask":
        from supervisor import ask

        ask.main(sys.argv[2])
    else:
        from supervisor import launch

        launch.main(sys.argv)
