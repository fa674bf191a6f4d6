"""SLURM's commands as some site may have them: what they print, and what they forget. No job is ever run.

A folder of scripts that are put before everything on PATH; what they know stands in state.json beside them.
"""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

COMMANDS = ("squeue", "sacct", "sbatch", "scancel", "scontrol")
PROGRAM = """#!{python} -SE
import json, os, re, sys, time
place = {place!r}
state = json.load(open(place + "/state.json"))
command, words = os.path.basename(sys.argv[0]), sys.argv[1:]
state["calls"].append([command, *words])
cluster = next((word.split("=", 1)[1] for word in words if word.startswith("--clusters=")), state["own"])
if "," in cluster and command == "sbatch":
    # It asks each that answers, and takes the one that would begin first.
    cluster = next((name for name in state["first"] if name in cluster.split(",") and name in state["clusters"]), "")
known = [job for job in state["jobs"] if job["cluster"] == cluster]
out = []
if state["banner"]:
    out.append(state["banner"])
code = 0
if cluster not in state["clusters"]:
    sys.stderr.write(command + ": error: No cluster '%s' known by database.\\n" % cluster)
    code = 1
elif command == "scontrol":
    out += ["ClusterName = " + cluster, "MaxArraySize = %d" % state["array_size"], "MaxJobCount = 10000"]
elif command == "squeue":
    form = next(word.split("=", 1)[1] for word in words if word.startswith("--format="))
    if cluster != state["own"]:
        out.append("CLUSTER: " + cluster)
    for job in known:
        fields = dict(i=job["id"], T=job["state"], V=job["submit"], j=job["name"], r=state["reason"])
        fields["k"] = job["comment"] or "(null)"
        out.append(re.sub(r"%(\\w)", lambda found: fields[found[1]], form))
elif command == "scancel":
    names = [word.partition("_")[0] for word in words if not word.startswith("-")]
    gone = [job for job in known if job["id"].partition("_")[0] in names]
    state["jobs"] = [job for job in state["jobs"] if job not in gone]
elif command == "sbatch" and state["refuses"]:
    sys.stderr.write(state["refuses"] + "\\n")
    code = 1
elif command == "sbatch":
    options = dict(re.findall(r"^#SBATCH --([\\w-]+)=?(.*)$", open(words[-1]).read(), re.M))
    assert cluster in options.get("clusters", cluster).split(","), options
    state["next"] += 1
    # Numbers of clusters have nothing to do with one another.
    number = 101 + sum(job["cluster"] == cluster for job in state["jobs"]) if state["first"] else state["next"]
    many = re.match(r"0-(\\d+)", options.get("array", ""))
    name = "%d_[0-%s]" % (number, many[1]) if many else str(number)
    submit = time.strftime("%Y-%m-%dT%H:%M:%S")
    comment = "" if state["no_comments"] else options.get("comment", "")
    state["jobs"].append(dict(id=name, cluster=cluster, state="PENDING", submit=submit, comment=comment,
                              name=options["job-name"], dependency=options.get("dependency", ""), options=options))
    if state["loses"]:
        sys.stderr.write("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\\n")
        code = 1
    else:
        out.append("%d;%s" % (number, cluster) if cluster != state["own"] else str(number))
with open(place + "/state.json", "w") as stream:
    json.dump(state, stream)
if command == "sbatch" and state["signals"]:
    os.kill(os.getppid(), state["signals"])
    time.sleep(state["then"])
print("\\n".join(out))
sys.exit(code)
"""


class Stub:
    """A site's commands in a folder."""

    def __init__(self, folder: Path, **wishes: Any) -> None:
        self.folder = folder
        folder.mkdir()
        place = str(folder)
        for name in COMMANDS:
            path = folder / name
            path.write_text(PROGRAM.replace("{python}", sys.executable).replace("{place!r}", repr(place)))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        state = {"own": "a", "clusters": ["a"], "jobs": [], "calls": [], "next": 100, "array_size": 11, "banner": ""}
        self.change(**state, refuses="", loses=False, no_comments=False, reason="Priority", signals=0, then=0, first="")
        self.change(**wishes)

    @property
    def state(self) -> dict[str, Any]:
        """What the site knows."""
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    def change(self, **wishes: Any) -> None:
        """Let the site be otherwise from now on."""
        path = self.folder / "state.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **wishes}))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What waits."""
        found: list[dict[str, Any]] = self.state["jobs"]
        return found
