import pathlib
import sys

import hypothesis

# `reference` beside the tests; nothing else of this folder's parent, so that the installed package is tested.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("ci")
