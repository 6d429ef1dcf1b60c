"""What the console keeps as long as the process lives."""

from __future__ import annotations

from dataclasses import dataclass

from api.runtime.console_sessions import ConsoleSessions
from api.runtime.job_changes import JobChanges
from api.runtime.job_lists import JobLists
from api.runtime.live_values import LiveValues
from api.runtime.login_attempts import LoginAttempts


@dataclass(frozen=True, slots=True)
class ConsoleState:
    """Who is logged in, who tries to, and what the open pages show."""

    sessions: ConsoleSessions
    attempts: LoginAttempts
    live: LiveValues
    jobs: JobChanges
    job_lists: JobLists
