"""A job sent to a Ray cluster: this code is shipped, the job started there, its log followed.

fakesift submit --follow preprocess s3://corpus/dfdc s3://lab/faces
fakesift submit --address https://ray.example.org --token-file token train s3://lab/faces s3://lab/model --workers 8
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import tyro

from cluster.client import Access, open_client, patiently
from cluster.console import Exit, guarded, parse, say
from cluster.follow import follow, hints
from cluster.no_secrets import passed_variables, refuse_secrets
from cluster.ship import digest_of, locked_dependencies, staged_code

# The jobs that may be sent, and whether they run tasks of their own and so take `--address`.
JOBS = {
    "preprocess": True,
    "train": True,
    "tune": True,
    "evaluate": True,
    "score": True,
    "plan": True,
    "status": False,
    "verify": False,
    "purge": False,
}
_STOP_PATIENCE_S = 30
_LIVING = {"PENDING", "RUNNING"}
_SENT = "fakesift_sent"


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(Access):
    """Options of `fakesift submit`; they stand before JOB, and what follows it is the job's."""

    follow: bool = False
    """Print the job's log until it ends, and end with its exit code. Ctrl-C detaches; the job goes on."""
    env: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME[=VALUE]")] = ()
    """A variable for the job, as AWS_ENDPOINT_URL. Secrets are refused: they would stand in the job's record."""
    dependencies: Literal["image", "lock"] = "image"
    """image: they are installed on the nodes; lock: each node installs requirements.lock first, hashes checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCommand:
    """A job with its arguments."""

    job: str
    arguments: tuple[str, ...]

    def entrypoint(self) -> str:
        """The shell command that runs on the cluster. It joins that cluster, unless its arguments say otherwise."""
        words = ["python", "-m", "jobs.cli", self.job, *self.arguments]
        named = any(word == "--address" or word.startswith("--address=") for word in self.arguments)
        if JOBS[self.job] and not named:
            words += ["--address", "auto"]
        return shlex.join(words)


def split_command(argv: Sequence[str]) -> tuple[list[str], JobCommand | None]:
    """The options of `submit`, which stand before the first word that names a job, and the job's command."""
    flags = {field.name for field in fields(SubmitOptions) if field.type == "bool"}
    takes_value = False
    for place, word in enumerate(argv):
        # A token's file may well be called like a job.
        if word in JOBS and not takes_value:
            return list(argv[:place]), JobCommand(job=word, arguments=tuple(argv[place + 1 :]))
        is_option = word.startswith("--") and not takes_value
        takes_value = is_option and "=" not in word and word[2:].replace("-", "_") not in flags
    return list(argv), None


def submit(options: SubmitOptions, command: JobCommand) -> int:
    """Sends the job, or finds the one that already runs with these arguments.

    Returns:
        0 once it is sent, or the job's exit code if it is followed.

    Raises:
        ValueError: for a secret in the arguments, a cluster that is open to all, or such a job that runs with other
            code or variables; `ConnectionError` and `RuntimeError` if the cluster does not answer, or not take it.
    """
    refuse_secrets(command.arguments, os.environ)
    environment = _environment(options, command)
    client = open_client(options)
    with staged_code() as folder:
        sent = digest_of(folder, json.dumps(environment, sort_keys=True))
        job_id = _running(client, command, sent, options)
        if job_id is not None:
            say(f"this very job runs already, as {job_id}")
        else:
            job_id = _send(client, command, {**environment, "working_dir": str(folder)}, sent)
            say(f"submitted {job_id}: {command.entrypoint()}")
    if options.follow:
        return follow(client, job_id, options)
    print(job_id)
    say(hints(job_id, options))
    return Exit.OK


def _environment(options: SubmitOptions, command: JobCommand) -> dict[str, Any]:
    """Ray's `runtime_env`, without the code."""
    variables = {
        **passed_variables(options.env, os.environ),
        # A stopped job is interrupted as by Ctrl-C, so that it says how to go on, and has time to do so.
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_PATIENCE_S),
    }
    return {"env_vars": variables, **(locked_dependencies() if options.dependencies == "lock" else {})}


def _running(client: Any, command: JobCommand, sent: str, access: Access) -> str | None:
    """The job with this very command that has not ended: sending it again would do its work twice.

    Raises:
        ValueError: if it was sent with other variables or other code, so that it is not what is asked for.
    """
    for details in patiently(client.list_jobs):
        if not details.submission_id or details.status not in _LIVING or details.entrypoint != command.entrypoint():
            continue
        job_id = str(details.submission_id)
        if (details.metadata or {}).get(_SENT, sent) != sent:
            raise ValueError(
                f"{job_id} runs with this command, but with other code, --env or --dependencies; expected it to have "
                f"ended (fakesift jobs stop {job_id}{access.spelled()}) before it is sent anew"
            )
        return job_id
    return None


def _send(client: Any, command: JobCommand, environment: dict[str, Any], sent: str) -> str:
    # Chosen here, so that a request that is repeated because its answer was lost starts no second job.
    job_id = f"{command.job}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"

    def send() -> None:
        try:
            client.submit_job(
                entrypoint=command.entrypoint(),
                submission_id=job_id,
                runtime_env=environment,
                metadata={"fakesift_job": command.job, _SENT: sent},
            )
        except RuntimeError:
            if not any(details.submission_id == job_id for details in client.list_jobs()):
                raise

    patiently(send)
    return job_id


def _run(argv: Sequence[str]) -> int:
    own, command = split_command(argv)
    doc = f"{__doc__}\nJOB ARGS... is one of {', '.join(JOBS)} with its own arguments."
    options = parse(SubmitOptions, "submit", doc, own)
    if command is None:
        raise ValueError(f"no job among the arguments, expected one of {', '.join(JOBS)}")
    return submit(options, command)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    try:
        return guarded(lambda: _run(sys.argv[1:] if argv is None else argv), "submit")
    except KeyboardInterrupt:
        say("interrupted; `fakesift jobs list` shows whether the job was sent")
        return Exit.INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
