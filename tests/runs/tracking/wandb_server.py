"""A W&B service on 127.0.0.1 that keeps what the real client sends: rows by line number, and by what they hold.

It answers as the service does: a run is resumed from its number of lines and its last line; lines sent to a place that
is taken replace what was there; lines beyond the end are kept and leave a hole. It can be killed (connections are
refused), started again on the same port with what it held, or told to answer with an error.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any

ENTITY = "team"
READ = {"Run": "name", "RunHistoryKeys": "name", "RunParquetHistory": "runName", "HistoryPage": "run"}
"""Operations that read a run back -> the variable that names it."""


@dataclass
class RemoteRun:
    """What the service holds of one run."""

    name: str
    project: str
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    display_name: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    events: int = 0
    exit_code: int | None = None
    posts: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows in the order of their lines; a hole is an error of the client's."""
        assert sorted(self.lines) == list(range(len(self.lines))), f"lines {sorted(self.lines)} have holes"
        return [self.lines[i] for i in range(len(self.lines))]


class Service:
    """The service; its runs outlive its being killed."""

    def __init__(self) -> None:
        self.runs: dict[str, RemoteRun] = {}
        self.operations: list[str] = []
        self.failure = 0
        """An HTTP status that file streams are answered with, or 0."""
        self.hanging = False
        """Whether connections are taken and never answered."""
        self.refusing = False
        """Whether queries are answered with 403."""
        self.lock = Lock()
        self._released = Event()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        """For WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, on the port of the first start."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), _Handler)
        server.daemon_threads, server.block_on_close = True, False
        server.service = self  # type: ignore[attr-defined]
        self._server, self._port = server, server.server_address[1]
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self) -> None:
        """Connections are refused from here on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def release(self) -> None:
        """Let hanging connections end."""
        self._released.set()

    def hang(self) -> None:
        """Wait as a service does that has lost its mind."""
        self._released.wait(60)

    def stream(self, project: str, name: str, body: dict[str, Any]) -> None:
        """Keep what a file stream brings."""
        run = self.runs[name]
        run.posts += 1
        files = body.get("files") or {}
        for i, line in enumerate(files.get("wandb-history.jsonl", {}).get("content", [])):
            run.lines[files["wandb-history.jsonl"]["offset"] + i] = json.loads(line)
        if "wandb-summary.json" in files:
            run.summary = json.loads(files["wandb-summary.json"]["content"][-1])
        events = files.get("wandb-events.jsonl", {})
        run.events = max(run.events, events.get("offset", 0) + len(events.get("content", [])))
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """GraphQL data of an operation."""
        self.operations.append(operation)
        if operation == "UpsertBucket":
            return {"upsertBucket": self._upsert(variables)}
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {"model": {**_project(variables["project"]), "bucket": run and _resumed(run)}}
        if operation == "Runs":
            return {"project": self._listing(variables)}
        if operation in READ:
            return {"project": {"run": _read(self.runs[variables[READ[operation]]], variables)}}
        if operation == "CreateRunFiles":
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": []}}
        return {"viewer": _VIEWER, "serverInfo": {"features": []}, "entity": {"organization": None}}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        new = name not in self.runs
        run = self.runs.setdefault(name, RemoteRun(name, variables["project"]))
        run.group = variables.get("groupName") or run.group
        run.job_type = variables.get("jobType") or run.job_type
        run.tags = variables.get("tags") or run.tags
        run.display_name = variables.get("displayName") or run.display_name
        run.config.update(json.loads(variables.get("config") or "{}"))
        bucket = {
            "id": f"node-{name}", "name": name, "displayName": run.display_name, "description": "", "config": "{}",
            "sweepName": None, "project": _project(run.project), "historyLineCount": len(run.lines),
        }  # fmt: skip
        return {"bucket": bucket, "inserted": new}

    def _listing(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        wanted = json.loads(variables.get("filters") or "{}").get("name", {}).get("$in")
        runs = [run for run in self.runs.values() if run.project == variables["project"]]
        if not runs:
            return None
        edges = [{"node": _listed(run), "cursor": run.name} for run in runs if wanted is None or run.name in wanted]
        page = {"endCursor": None, "hasNextPage": False}
        about = {"internalId": "1", "id": "1", "readOnly": False, "name": variables["project"], "runCount": len(edges)}
        return {**about, "runs": {"totalCount": len(edges), "edges": edges, "pageInfo": page}}


_VIEWER = {
    "id": "u", "username": "u", "entity": ENTITY, "email": "u@example.org", "flags": "{}", "admin": False,
    "teams": {"edges": [{"node": {"name": ENTITY}}]}, "apiKeys": {"edges": []},
}  # fmt: skip


def _project(name: str) -> dict[str, Any]:
    return {"id": "p", "name": name, "entity": {"id": "e", "name": ENTITY}}


def _resumed(run: RemoteRun) -> dict[str, Any]:
    return {
        "id": f"node-{run.name}", "name": run.name, "displayName": run.display_name,
        "summaryMetrics": json.dumps(run.summary), "logLineCount": 0, "historyLineCount": len(run.lines),
        "eventsLineCount": run.events, "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": "[]", "config": json.dumps(run.config), "tags": [], "notes": None, "wandbConfig": '{"t": 1}',
    }  # fmt: skip


def _listed(run: RemoteRun) -> dict[str, Any]:
    return {
        "id": f"node-{run.name}", "name": run.name, "displayName": run.display_name, "group": run.group,
        "state": "running" if run.exit_code is None else "finished", "tags": [], "sweepName": None, "jobType": None,
        "commit": None, "readOnly": False, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00",
        "description": "", "notes": None, "projectId": 1, "historyLineCount": len(run.lines),
        "user": {"name": "u", "username": "u"},
    }  # fmt: skip


def _read(run: RemoteRun, variables: dict[str, Any]) -> dict[str, Any]:
    """A run as it is read back, with the rows of the page that is asked for."""
    low, high = int(variables.get("minStep") or 0), int(variables.get("maxStep") or 10**9)
    rows = [row for row in run.history if low <= row["_step"] < high]
    return {
        **_listed(run), "config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": "{}", "historyKeys": {"lastStep": len(run.lines) - 1, "keys": {}},
        "parquetHistory": {"liveData": [], "parquetUrls": []}, "history": [json.dumps(row) for row in rows],
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        service: Service = self.server.service  # type: ignore[attr-defined]
        data = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        body = json.loads(data or b"{}")
        if service.hanging:
            service.hang()
        elif service.refusing and self.path == "/graphql":
            self._reply({"errors": [{"message": "permission denied"}]}, 403)
        elif self.path == "/graphql":
            with service.lock:
                self._reply({"data": service.answer(_operation(body), body.get("variables") or {})})
        elif service.failure:
            self._reply({"error": "told to"}, service.failure)
        else:
            _, _, entity, project, name, kind = self.path.split("/")
            assert (entity, kind) == (ENTITY, "file_stream")
            with service.lock:
                service.stream(project, name, body)
            self._reply({"exitcode": None, "limits": {}})

    def _reply(self, answer: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _operation(body: dict[str, Any]) -> str:
    head = body["query"].replace("#graphql", "").split("{")[0].split("(")[0]
    return str(head.split()[1])


@contextmanager
def serving() -> Iterator[Service]:
    """A running service."""
    service = Service()
    service.start()
    try:
        yield service
    finally:
        service.release()
        service.kill()
