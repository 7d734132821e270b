"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # data and cases beside the repository, where they are there
DATA = SHARED / "data"
FAULTS = SHARED / "cases" / "faults"
