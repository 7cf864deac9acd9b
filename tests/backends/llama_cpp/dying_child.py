"""The process of a trial that a signal kills, as llama.cpp's kernels have done, once it has answered so
often: `python dying_child.py SIGNAL ANSWERS FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sakuin.backends.llama_cpp import trial_child
from sakuin.backends.llama_cpp.trial_child import main, measure

left = int(sys.argv[2])


def measured(*arguments: Any) -> Any:
    global left
    if not left:
        os.kill(os.getpid(), signal.Signals[sys.argv[1]])
    left -= 1
    return measure(*arguments)


trial_child.measure = measured
main(Path(sys.argv[3]))
