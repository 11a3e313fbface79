"""Own the fixtures' way to the textbook stores, which several reference tests share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
