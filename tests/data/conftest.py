import sys
from pathlib import Path

# Helpers in tests/ are imported by their bare names, under every import mode of pytest.
sys.path.insert(0, str(Path(__file__).parents[1]))
