"""How a collection's costs grow with its passages: what scripts/bench_growth.py does."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(1, str(ROOT))
