"""The HTTP API for the commands: `worker.client` with the URL and key of the profile, and one line for each failure."""

from __future__ import annotations

from typing import Any, Final

from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.profile import Profile, load_profile
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

_RETRIES: Final = Retries(times=3, first=0.1, longest=5.0)  # a person waits: report a missing API within a second


class Client(Vigil):
    """Calls the HTTP API; its exceptions leave the `with` block as a CliError whose line says what to do."""

    def __init__(self, profile: Profile | None = None) -> None:
        self.profile = profile or load_profile()
        if self.profile.key is None:
            raise CliError(
                "no API key: set VIGIL_API_KEY (`vigil keys create --app NAME` makes one), "
                "or start `vigil up` in this folder: its key is then used",
                EXIT_USAGE,
            )
        try:
            super().__init__(self.profile.url, self.profile.key, retries=_RETRIES, agent="vigil-cli")
        except Misconfigured:
            raise CliError(
                "wrong settings: VIGIL_URL or VIGIL_API_KEY has characters that can't be sent", EXIT_USAGE
            ) from None

    def __exit__(self, *ended: object) -> None:
        super().__exit__(*ended)
        for error in ended:
            if isinstance(error, VigilError):
                raise to_cli_error(error, self.profile) from None

    def call(self, method: Method, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        """Call a route without a method of its own and return its JSON object. `headers`: underscores become dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.request(method, path, body, given)
        if not isinstance(answer, dict):
            raise Unreadable(f"{self.url} answered without a JSON object; is that a Vigil?")
        return answer


def to_cli_error(error: VigilError, profile: Profile) -> CliError:
    """Convert an exception of the client to the line and the exit code of the command."""
    match error:
        case TimedOut():
            return CliError(f"Vigil at {profile.url} took too long to answer; try again, or run `vigil doctor`")
        case ConnectionFailed(sent=False):
            return CliError(f"no Vigil answers at {profile.url}; start one with `vigil up`, or set VIGIL_URL")
        case Unauthorized():
            where = f"the one in {profile.saved_by_up}" if profile.saved_by_up else "VIGIL_API_KEY"
            return CliError(
                f"{profile.url} doesn't know this API key ({where}); set VIGIL_API_KEY to a valid one", EXIT_USAGE
            )
        case ApiError(code="insufficient_scope"):
            detail = (error.detail or "This key lacks a scope.").rstrip(".")
            return CliError(
                f"{detail}; `vigil keys create --app NAME --scope SCOPE` makes a key that has it ({error.code})"
            )
        case _:
            return CliError(str(error), EXIT_USAGE if isinstance(error, BadRequest) else EXIT_FAILED)
