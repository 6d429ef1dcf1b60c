"""Simulates a model provider, faithful on the wire, for development, tests and load.

It imports nothing of Vigil and not the provider's SDK: a double that shares the parser would share its mistakes.
"""

from .app import Simulator, run
from .scenarios import SCENARIOS

__all__ = ["SCENARIOS", "Simulator", "run"]
