"""The app's modules lie beside it, as a Space has them: not in the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "space"))
