"""Fixtures that telemetry shares with other tests: real processes, and a client that acts as an app."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for room in ("chaos", "api"):
    sys.path.append(str(HERE.parent / room))
