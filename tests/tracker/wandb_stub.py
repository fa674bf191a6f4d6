"""A W&B service on 127.0.0.1 that knows two runs: enough of its protocol for the real client's Api."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

ROWS = 700  # more than the 500 rows that a sampled history would give


def history(run: str) -> list[dict[str, float]]:
    """Logged rows of a run; the lowest loss is at a row that a sample would miss."""
    return [
        {"_step": i, "tokens": 1e6 * (i + 1), "val_loss": 2.0 + 1 / (i + 1) - (0.4 if i == 333 else 0.0)}
        for i in range(ROWS if run == "aaa" else 20)
    ]


def _run(name: str, state: str = "finished") -> dict[str, Any]:
    return {
        "id": f"node-{name}", "name": name, "displayName": f"run {name}", "state": state, "tags": [], "group": None,
        "config": json.dumps({"model": {"value": {"params": 1e6, "arch": "btt"}}, "_wandb": {"value": {}}}),
        "summaryMetrics": "{}", "systemMetrics": "{}",
        "historyKeys": {"lastStep": len(history(name)) - 1, "keys": {}},
        "historyLineCount": len(history(name)), "heartbeatAt": "2026-01-01T00:00:00",
        "createdAt": "2026-01-01T00:00:00",
        "sweepName": None, "jobType": None, "commit": None, "readOnly": True, "notes": None, "projectId": 1,
        "internalId": name, "description": None, "user": {"name": "u", "username": "u"}, "eventsLineCount": 0,
        "stopped": False, "host": "h", "updatedAt": "2026-01-01T00:00:00",
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        server: Any = self.server
        query, variables = body.get("query", ""), body.get("variables") or {}
        server.seen.append(query.split("(")[0].split("{")[0].strip())
        answer = json.dumps({"data": _answer(query, variables)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def _answer(query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """GraphQL data for the operations that reading runs needs."""
    project: dict[str, Any] = {"internalId": "1", "id": "1", "readOnly": True, "name": "p", "runCount": 2}
    edges = [{"node": _run(name), "cursor": name} for name in ("aaa", "bbb")]
    project["runs"] = {"totalCount": 2, "edges": edges, "pageInfo": {"endCursor": "bbb", "hasNextPage": False}}
    name = variables.get("name") or variables.get("run") or variables.get("runName")
    if name:
        project["run"] = _run(str(name))
        low, high = int(variables.get("minStep") or 0), int(variables.get("maxStep") or 10**9)
        rows = [row for row in history(str(name)) if low <= row["_step"] < high]
        project["run"]["history"] = [json.dumps(row) for row in rows]
        project["run"]["parquetHistory"] = {"liveData": [], "parquetUrls": []}
        if "sampled" in query.lower():
            project["run"]["sampledHistory"] = [rows[:: max(1, len(rows) // 500)]]
    viewer = {
        "id": "u",
        "username": "u",
        "entity": "e",
        "flags": "{}",
        "teams": {"edges": []},
        "apiKeys": {"edges": []},
    }
    return {"viewer": viewer, "project": project, "serverInfo": {"features": []}, "entity": {"name": "e"}}


@contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    """(address, operations seen so far) of a running service."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.seen = []  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
