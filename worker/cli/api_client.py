"""The HTTP API for the commands: `worker.client` with URL and key from the door, and one line for each failure."""

from __future__ import annotations

from typing import Any, Final

from worker.cli.errors import BAD, USAGE, CliError
from worker.cli.profile import Profile, find_door
from worker.client import (
    ApiError,
    BadRequest,
    ConnectionFailed,
    Misconfigured,
    Retries,
    TimedOut,
    Unauthorized,
    Unreadable,
    Vigil,
    VigilError,
)
from worker.client.requests import Method

_QUICK: Final = Retries(
    times=3, first=0.1, longest=5.0
)  # somebody sits there: a Vigil that isn't there is told at once


class Client(Vigil):
    """Vigil's HTTP API; every failure leaves the block as a CliError with one line that says what to do."""

    def __init__(self, door: Profile | None = None) -> None:
        self.door = door or find_door()
        if self.door.key is None:
            raise CliError(
                "no API key: set VIGIL_API_KEY (`vigil keys create --app NAME` makes one), "
                "or start `vigil up` in this folder, whose key is then used",
                USAGE,
            )
        try:
            super().__init__(self.door.url, self.door.key, retries=_QUICK, agent="vigil-cli")
        except Misconfigured:
            raise CliError(
                "wrong settings: VIGIL_URL or VIGIL_API_KEY holds characters that can't be sent", USAGE
            ) from None

    def __exit__(self, *ended: object) -> None:
        super().__exit__(*ended)
        for error in ended:
            if isinstance(error, VigilError):
                raise told(error, self.door) from None

    def call(self, method: Method, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        """The JSON answer of a route without a method of its own. `headers`: underscores stand for dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.request(method, path, body, given)
        if not isinstance(answer, dict):
            raise Unreadable(f"{self.url} answered without a JSON object; is that a Vigil?")
        return answer


def told(error: VigilError, door: Profile) -> CliError:
    """The line and the exit code for what went wrong between us and the API."""
    match error:
        case TimedOut():
            return CliError(f"Vigil at {door.url} took too long to answer; try again, or look with `vigil doctor`")
        case ConnectionFailed(sent=False):
            return CliError(f"no Vigil answers at {door.url}; start one with `vigil up`, or set VIGIL_URL")
        case Unauthorized():
            where = f"the one in {door.left_by_up}" if door.left_by_up else "VIGIL_API_KEY"
            return CliError(f"{door.url} doesn't know this API key ({where}); set VIGIL_API_KEY to a live one", USAGE)
        case ApiError(code="insufficient_scope"):
            said = (error.detail or "This key lacks a scope.").rstrip(".")
            return CliError(
                f"{said}; `vigil keys create --app NAME --scope SCOPE` makes a key that has it ({error.code})"
            )
        case _:
            return CliError(str(error), USAGE if isinstance(error, BadRequest) else BAD)
