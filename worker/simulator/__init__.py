"""A fake model provider, faithful on the wire, for development, tests and load.

It imports nothing of Vigil and not the provider's SDK: a double that shares the parser agrees with its mistakes.
"""

from .app import Simulator, run
from .scenarios import SCENARIOS

__all__ = ["SCENARIOS", "Simulator", "run"]
