"""Run `vigil …` to its end in a process forked from one that has imported everything already.

A fresh interpreter spends 1 to 2 s of processor time on imports; hundreds of commands made that a third of the suite's
time. The forked process has its own folder, environment, streams and exit code, and ends like any other. Commands whose
environment changes the interpreter itself (PYTHON*) still get a fresh one, and so does everything that keeps running
(`vigil up`, workers, APIs), so the console script is tested too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, NoReturn

VIGIL = Path(sys.executable).parent / "vigil"
_LENGTH = struct.Struct("!I")


class _Forker:
    """The process that forks; it ends when its socket is closed."""

    def __init__(self) -> None:
        self.socket, remote_end = socket.socketpair()
        with remote_end:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(remote_end.fileno())],
                pass_fds=[remote_end.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(self, request: bytes, streams: list[int]) -> socket.socket:
        """Start one command and return the socket that tells its exit code."""
        own_end, remote_end = socket.socketpair()
        with remote_end:
            socket.send_fds(self.socket, [_LENGTH.pack(len(request))], [*streams, remote_end.fileno()])
            self.socket.sendall(request)
        return own_end

    def stop(self) -> None:
        self.socket.close()
        self.process.wait()


_forker: _Forker | None = None


def stop() -> None:
    """End the process that forks, if there is one."""
    global _forker  # noqa: PLW0603  one for each test process
    if _forker is not None:
        _forker.stop()
        _forker = None


def run(
    words: list[str], *, cwd: Path, env: dict[str, str], text: str | None = None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Return what the command wrote and its exit code; raise TimeoutError when it does not end in time."""
    global _forker  # noqa: PLW0603
    if any(name.startswith("PYTHON") for name in env if name != "PYTHONPATH"):
        return subprocess.run(
            [VIGIL, *words], cwd=cwd, env=env, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    if _forker is None or _forker.process.poll() is not None:
        _forker = _Forker()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write((text or "").encode())
        given.seek(0)
        request = json.dumps({"words": words, "cwd": str(cwd), "env": env}).encode()
        with _forker.start(request, [given.fileno(), out.fileno(), err.fileno()]) as ended:
            ended.settimeout(timeout)
            pid = _LENGTH.unpack(_read(ended, _LENGTH.size))[0]
            try:
                code = _LENGTH.unpack(_read(ended, _LENGTH.size))[0]
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess([str(VIGIL), *words], code, _text(out), _text(err))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("the forking process has ended")
        data += piece
    return data


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request, and one that waits for it, until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait are nobody's to wait for
    while True:
        head, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, 4)
        if not head:
            return
        request = json.loads(_read(connection, _LENGTH.unpack(head)[0]))
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            _wait(request, streams)
        for stream in streams:
            os.close(stream)


def _wait(request: dict[str, Any], streams: list[int]) -> None:
    """Fork the command; in this process tell its pid and how it ended. Return in the command's process alone."""
    pid = os.fork()
    if pid == 0:
        os.close(streams.pop())
        _become(request, streams)
    tell = socket.socket(fileno=streams.pop())
    for stream in streams:
        os.close(stream)
    tell.sendall(_LENGTH.pack(pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tell.sendall(_LENGTH.pack(code if code >= 0 else 128 - code))
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be the command: its folder, environment and streams; leaves by SystemExit, as `vigil` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()  # noqa: TID251
    os.environ.update(request["env"])  # noqa: TID251
    tempfile.tempdir = None
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = [str(VIGIL), *request["words"]]
    from worker.cli.main import main

    main()
    raise SystemExit


if __name__ == "__main__":
    from worker.cli.main import assemble

    assemble()  # imports every command
    import worker.cli.doctor.external_checks
    import worker.store.jobs.repository
    import worker.upstream.client  # noqa: F401  what most commands import when they run

    _serve(socket.socket(fileno=int(sys.argv[1])))
