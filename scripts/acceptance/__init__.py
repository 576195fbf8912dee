"""What a GPU box proves of itself: the parts of scripts/gpu_acceptance.py."""

import sys
from pathlib import Path

# A checkout is enough: the product's packages are found whether they are installed or not.
ROOT = Path(__file__).resolve().parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(1, str(ROOT))
