"""OpenVINO engines come and go in a process that handles signals."""

import subprocess
import sys
from pathlib import Path

import pytest

# The handler runs on the thread's signal stack if that is set.
PROGRAM = """
import gc, os, signal, sys
from salience.runtime import load

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first = load(sys.argv[1], backend="openvino", threads=1)
second = load(sys.argv[1], backend="openvino", threads=1)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_signals_are_handled_after_engines_have_gone(bundle: Path) -> None:
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(bundle)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
