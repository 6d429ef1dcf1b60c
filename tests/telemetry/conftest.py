"""What the tests of telemetry borrow from other rooms: real processes, a hand that plays an app."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for room in ("chaos", "api"):
    sys.path.append(str(HERE.parent / room))
