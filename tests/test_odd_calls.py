"""The command line, called oddly: `python tests/odd_calls.py` says which call goes wrong."""

import os
import subprocess
import sys

import odd_calls
import pytest


@pytest.mark.nightly
def test_odd_calls_are_refused_in_one_sentence_and_write_nothing():
    """In a process that forks: this one has threads."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, odd_calls.__file__]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout
