"""A submitted job's log as it is written, and the exit code that the job ended with."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Any

from cluster.client import Access, patiently
from cluster.console import Exit, say

_POLL_S = 1.0
_SAY_PENDING_AFTER_S = 10.0


def follow(client: Any, job_id: str, access: Access) -> int:
    """Prints the log from its start on standard output until the job ends.

    Returns:
        The job's own exit code; 1 if it was killed or never started; 130 if it was stopped.

    Raises:
        ConnectionError: if the cluster does not answer any more.
    """
    try:
        return _follow(client, job_id)
    except ConnectionError as error:
        raise ConnectionError(f"{error}. If it runs still: fakesift jobs attach {job_id}{access.spelled()}") from error
    except KeyboardInterrupt:
        say(f"\ndetached; the job goes on.\n{hints(job_id, access)}")
        return Exit.INTERRUPTED


def hints(job_id: str, access: Access) -> str:
    """How to find the job again."""
    rest = f"{job_id}{access.spelled()}"
    return (
        f"  follow it    fakesift jobs attach {rest}\n"
        f"  look at it   fakesift jobs list {rest}\n"
        f"  stop it      fakesift jobs stop {rest}"
    )


def _follow(client: Any, job_id: str) -> int:
    _wait_while_pending(client, job_id)
    printed = 0
    while True:
        printed = _tail(client, job_id, printed)
        details = patiently(lambda: client.get_job_info(job_id))
        if details.status.is_terminal():
            break
        time.sleep(_POLL_S)
    # The stream may end before the last lines are in it.
    _print(patiently(lambda: client.get_job_logs(job_id))[printed:])
    return exit_code(details)


def _wait_while_pending(client: Any, job_id: str) -> None:
    started, said = time.monotonic(), False
    while (details := patiently(lambda: client.get_job_info(job_id))).status == "PENDING":
        if not said and time.monotonic() - started > _SAY_PENDING_AFTER_S:
            said = True
            say(f"waiting to start: {' '.join((details.message or '').split())}")
        time.sleep(_POLL_S)


def _tail(client: Any, job_id: str, printed: int) -> int:
    """Prints what comes after the first `printed` characters, until the stream ends or breaks."""
    import aiohttp

    async def tail() -> None:
        nonlocal printed
        seen = 0
        async for text in client.tail_job_logs(job_id):
            _print(text[max(0, printed - seen) :])
            seen += len(text)
            printed = max(printed, seen)

    # A broken stream is no news of the job: whoever called asks how it is, and comes back.
    with suppress(RuntimeError, aiohttp.ClientError, OSError):
        asyncio.run(tail())
    return printed


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def exit_code(details: Any) -> int:
    """What a finished job's record means as an exit code; says why where the job itself could not."""
    if details.status == "SUCCEEDED":
        return Exit.OK
    if details.status == "STOPPED":
        say("the job was stopped; what it committed stays, and the same command goes on from there")
        return Exit.INTERRUPTED
    code: int | None = details.driver_exit_code
    if code is not None and code > 0:
        return code
    say(f"the job failed: {' '.join((details.message or 'Ray gives no reason').split())[:1000]}")
    return Exit.FAILED
