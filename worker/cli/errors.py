"""What can go wrong at a command line, and the one line that a person gets to see: never a traceback.

Exit codes: 0 done, 1 it came out badly, 2 wrong usage or settings, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final, Literal

from worker.jobs.errors import (
    RecordUnreadable,
    Refused,
    SettingsError,
    StoreChanged,
    StoreRefused,
    StoreUnavailable,
    UnknownModel,
    UnsafeStore,
    VigilError,
)

BAD: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class CliError(Exception):
    """Ends the command with one line on stderr; `code` is the exit code."""

    def __init__(self, line: str, code: Literal[1, 2] = BAD) -> None:
        super().__init__(line)
        self.code = code


def explain(error: BaseException) -> tuple[str, int]:
    """(the line, the exit code) for an exception that ended a command; foreign ones show their class alone."""
    match error:
        case CliError():
            return str(error), error.code
        case SettingsError():
            return "wrong settings: " + "; ".join(error.faults), USAGE
        case UnsafeStore() | UnknownModel() | Refused():
            return str(error), USAGE
        case StoreRefused():
            return f"{error}; `vigil doctor` looks further", USAGE
        case StoreUnavailable():
            more = "" if isinstance(error, StoreChanged) else "; `vigil doctor` looks further"
            return f"{error}{more}", BAD
        case VigilError():
            more = "; ops/runbook/RecordsUnreadable.md says what to do" if isinstance(error, RecordUnreadable) else ""
            return f"{error}{more}", BAD
        case OSError(errno=errno.EADDRINUSE):
            return "another process took the port at the same moment; choose another with --port", BAD
        case ExceptionGroup() if len(error.exceptions) == 1:
            return explain(error.exceptions[0])
        case ExceptionGroup():
            lines = [explain(one) for one in error.exceptions]
            return "; ".join(dict.fromkeys(line for line, _ in lines)), max(code for _, code in lines)
        case _:
            name = type(error).__name__
            return (
                f"{name}: this should not happen; VIGIL_LOG_LEVEL=DEBUG shows where, `vigil doctor` may know why",
                BAD,
            )


def wants_traceback() -> bool:
    """True when the user asked for all there is to see; read here because the settings may be what is broken."""
    return os.environ.get("VIGIL_LOG_LEVEL", "").upper() == "DEBUG"  # noqa: TID251


def complain(line: str) -> None:
    """One line on stderr, whatever is in it."""
    print("vigil:", " ".join(line.split()), file=sys.stderr)
