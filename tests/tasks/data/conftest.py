"""The module beside this file (bad_files) is a top-level name."""

import sys
from pathlib import Path

# --import-mode=importlib leaves this folder off the path
sys.path.insert(0, str(Path(__file__).parent))
