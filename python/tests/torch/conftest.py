"""The second suite: what needs torch. Run by `python/tests/torch/run.sh`."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
pytest.importorskip("torch")
