"""The exit codes of the commands, and the one line that is printed for an exception: never a traceback.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted.
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

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class CliError(Exception):
    """Ends the command with one line on stderr and the exit code `code`."""

    def __init__(self, line: str, code: Literal[1, 2] = EXIT_FAILED) -> None:
        super().__init__(line)
        self.code = code


def explain(error: BaseException) -> tuple[str, int]:
    """Return (line, exit code) for an exception that ended a command. Of unexpected ones only the class is shown."""
    match error:
        case CliError():
            return str(error), error.code
        case SettingsError():
            return "wrong settings: " + "; ".join(error.faults), EXIT_USAGE
        case UnsafeStore() | UnknownModel() | Refused():
            return str(error), EXIT_USAGE
        case StoreRefused():
            return f"{error}; `vigil doctor` shows more", EXIT_USAGE
        case StoreUnavailable():
            more = "" if isinstance(error, StoreChanged) else "; `vigil doctor` shows more"
            return f"{error}{more}", EXIT_FAILED
        case VigilError():
            return f"{error}{_advice(error)}", EXIT_FAILED
        case OSError(errno=errno.EADDRINUSE):
            return "another process has just taken the port; choose another with --port", EXIT_FAILED
        case OSError(filename=str(path), strerror=str(why)):
            return f"{path} can't be used ({why})", EXIT_FAILED
        case ExceptionGroup():
            lines = [explain(one) for one in error.exceptions]
            return "; ".join(dict.fromkeys(line for line, _ in lines)), max(code for _, code in lines)
        case _:
            name = type(error).__name__
            return (
                f"{name}: an unexpected error; VIGIL_LOG_LEVEL=DEBUG prints where, `vigil doctor` may show why",
                EXIT_FAILED,
            )


def _advice(error: VigilError) -> str:
    """Return what to do about a record that can't be read; "" for other errors."""
    if not isinstance(error, RecordUnreadable):
        return ""
    if error.why == "no_mac":
        return ": it may be planted; if it is older than the encryption or this release, `vigil store seal` accepts it"
    return "; ops/runbook/RecordsUnreadable.md says what to do"


def wants_traceback() -> bool:
    """Return whether VIGIL_LOG_LEVEL is DEBUG. Not read from the settings, which may be what is wrong."""
    return os.environ.get("VIGIL_LOG_LEVEL", "").upper() == "DEBUG"  # noqa: TID251


def print_error(line: str) -> None:
    """Print one line to stderr; line breaks in it become spaces."""
    print("vigil:", " ".join(line.split()), file=sys.stderr)
