"""Kernels that have imported what is slow: one process imports it, and forks for each notebook.

Only modules of other packages are imported beforehand. A chapter's own imports then take one second
in place of eight. `tests/execute.py`, which stores outputs, starts every kernel anew.

    python tests/kernels.py   # the process that forks: it reads a line of JSON for each kernel
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from importlib import import_module
from typing import NoReturn

from copies import SHARED

#: slow to import, too, and in many chapters
MORE = (
    "ipykernel.kernelapp",
    "ipywidgets",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mpl_toolkits.mplot3d.axes3d",
    "sklearn.metrics",
    "transformers.generation",
)


class Forked:
    """A kernel, with what `jupyter_client` uses of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid = pid

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return forking().poll()

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        return 0

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@cache
def forking() -> subprocess.Popen:
    """The process that forks; it ends with this one."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen([sys.executable, __file__], text=True, **pipes)


def launch(cmd: list[str], cwd: str | None = None, env: dict | None = None, **_) -> Forked:
    """In place of `jupyter_client.launcher.launch_kernel`."""
    process = forking()
    asked = {"arguments": cmd[cmd.index("ipykernel_launcher") :], "folder": cwd, "env": env}
    print(json.dumps(asked), file=process.stdin, flush=True)
    return Forked(int(process.stdout.readline()))


def become(arguments: list[str], folder: str, env: dict[str, str]) -> NoReturn:
    """Turns a forked process into a kernel, which ends with the process that it comes from."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.chdir(folder)
    os.environ.update(env)
    sys.argv = [*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"]
    import_module("ipykernel.kernelapp").launch_new_instance()
    os._exit(0)


def main() -> None:
    del sys.path[0]  # no chapter sees the tests
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in (*SHARED, *MORE):
        import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a kernel that ends is gone at once
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            become(**json.loads(line))
        os.setpgid(pid, pid)  # before it is named: signals go to its group
        print(pid, flush=True)


if __name__ == "__main__":
    main()
