"""Stands in for `benchmarks.gpu_probe` in its process: a package that answers, and packages that break it."""

import os
import signal
import sys
import time


def main(name: str) -> None:
    if name == "fine":
        sys.stdout.write('noise of a library\n{"version": "1.2"}\n')
    if name == "crashing":
        os.kill(os.getpid(), signal.SIGABRT)
    if name == "hanging":
        time.sleep(600)
    if name == "leaving":
        os._exit(0)
    if name == "odd":
        sys.stdout.write("{}]\n")


if __name__ == "__main__":
    main(sys.argv[1])
