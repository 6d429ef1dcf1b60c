"""What the tests of chaos borrow from telemetry: a fake ingest, a receiver of webhooks."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("telemetry", "webhooks"):
    sys.path.append(str(Path(__file__).resolve().parent.parent / folder))
