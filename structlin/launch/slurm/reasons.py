"""Why does an element wait, and will it ever begin? SLURM's reasons, and what to change where waiting does not help.

Names are those of SLURM's list of job reason codes (slurm.schedmd.com/job_reason_codes.html). The hundred limits among
them are read by the parts of their names: whose limit it is, of how much of what. A new reason is a row of ``REASONS``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NEVER = "never begins"
"""As it was asked for, however long it waits."""
STUCK = "waits until somebody acts"
LATER = "waits"


@dataclass(frozen=True)
class Hint:
    """What a reason means for whoever waits."""

    fate: str
    """NEVER, STUCK or LATER."""
    way: str = ""
    """What would change it; empty where there is nothing to do."""


_PARTITION = "lower launch.max_minutes (and launch.time_minutes), or another launch.partition"
_RELEASE = "scontrol release JOB, or cancel=true and the same command"
_OWN = "until others of yours end; launch.max_running keeps below it"
_NODES = (
    "nodes that it needs are down, drained or reserved (sinfo -R); another launch.partition or launch.constraint, or "
)
_NODES += "launch.options without nodelist= and exclude=; before a maintenance a shorter launch.max_minutes fits"

REASONS: tuple[tuple[str, Hint], ...] = (
    (r"PartitionTimeLimit|QOSTimeLimit|AssociationTimeLimit", Hint(NEVER, _PARTITION)),
    (
        r"BadConstraints",
        Hint(
            NEVER,
            "no node has all that was asked for: launch.constraint, launch.gpu_type or launch.gres, launch.gpus, "
            "launch.cpus_per_gpu, launch.memory_gb, launch.partition",
        ),
    ),
    (
        r"PartitionNodeLimit|PartitionConfig",
        Hint(NEVER, "fewer launch.nodes, or another launch.partition"),
    ),
    (r"DependencyNeverSatisfied", Hint(NEVER, "the array that it waits for has not ended well; its log says why")),
    (r"InvalidAccount|AccountNotAllowed", Hint(NEVER, "another launch.account (sacctmgr show assoc user=$USER)")),
    (r"InvalidQOS|QOSNotAllowed", Hint(NEVER, "another launch.qos (sacctmgr show assoc user=$USER format=qos)")),
    (r"ReservationDeleted", Hint(NEVER, "launch.options without that reservation=")),
    (r"MaxMemPerLimit", Hint(NEVER, "less memory: launch.memory_gb, launch.runs_per_gpu, or launch.memory_by")),
    (r"DeadLine", Hint(NEVER, "launch.options without that deadline=, or a shorter launch.max_minutes")),
    (r"JobHeldUser|launch failed requeued held|job requeued in held state", Hint(STUCK, _RELEASE)),
    (r"JobHoldMaxRequeue", Hint(STUCK, f"it was requeued too often: {_RELEASE}")),
    (r"JobHeldAdmin", Hint(STUCK, "the site holds it: ask its support, or cancel=true")),
    (r"ReqNodeNotAvail|NodeDown|Nodes required for job are DOWN", Hint(STUCK, _NODES)),
    (r"PartitionDown|PartitionInactive|FrontEndDown", Hint(STUCK, "the site has closed it; another launch.partition")),
    (r"QOSUsageThreshold", Hint(STUCK, "its share is used up; another launch.qos or launch.account")),
    (r"BurstBufferOperation", Hint(STUCK, "its burst buffer failed; launch.options without bb=")),
    (r"AccountingPolicy", Hint(STUCK, "a limit of your account or QOS (sacctmgr show assoc, sacctmgr show qos)")),
    (r"Licenses", Hint(LATER, "for a licence that others hold; launch.options without licenses= needs none")),
    (r"AssociationJobLimit|QOSJobLimit", Hint(LATER, _OWN)),
    (r"JobArrayTaskLimit", Hint(LATER, "launch.max_running elements run")),
)
"""By the beginning of a reason. What is neither here nor a limit (Priority, Resources, ...) just waits."""

_LIMIT = re.compile(r"(?P<whose>QOS|Assoc\w*?|)(?P<kind>Grp|Max|Min)(?P<what>[A-Z]\w*)")
_MORE = (
    (re.compile(r"C[pP][uU]"), "ask for more cores: launch.cpus_per_gpu, launch.runs_per_gpu"),
    (re.compile("Mem"), "ask for more memory: launch.memory_gb"),
    (re.compile("Node"), "ask for more nodes: launch.nodes"),
    (re.compile(""), "ask for more GPUs an element: launch.gpus"),
)
_LESS = (
    (re.compile("Wall|TimeLimit"), "lower launch.max_minutes (and launch.time_minutes)"),
    (
        re.compile("Minutes|Mins"),
        "lower launch.max_minutes, or ask for less an element: launch.gpus, launch.cpus_per_gpu",
    ),
    (re.compile("GRES|TRES|Gpu", re.IGNORECASE), "ask for fewer GPUs an element: launch.gpus, launch.nodes"),
    (re.compile("Cpu|Core", re.IGNORECASE), "ask for fewer cores: launch.cpus_per_gpu, launch.runs_per_gpu, threads"),
    (re.compile("Mem"), "ask for less memory: launch.memory_gb, launch.runs_per_gpu"),
    (re.compile("Node"), "ask for other nodes: launch.nodes, launch.gpus_per_run"),
    (re.compile(""), "ask for less, or another launch.qos"),
)


def way_out(limit: str) -> str:
    """What to change where a limit, by its name, refuses what was asked for."""
    found = _LIMIT.fullmatch(limit)
    table = _MORE if found is not None and found["kind"] == "Min" else _LESS
    # QOSMaxMemoryPerNode limits memory.
    what = re.sub(r"Per(Job|Node|User|Account)\w*", "", limit)
    return next(way for words, way in table if words.search(what))


def hint_of(reason: str) -> Hint:
    """What a reason of squeue means."""
    text = reason.replace("_", " ")  # newer versions print no blanks
    for words, hint in REASONS:
        if re.match(rf"(?:{words})\b", text):
            return hint
    name = re.match(r"\w*", text)
    assert name is not None
    limit = _LIMIT.fullmatch(name[0])
    return Hint(LATER) if limit is None else _of_limit(limit)


def _of_limit(limit: re.Match[str]) -> Hint:
    kind, what, way = limit["kind"], limit["what"], way_out(limit[0])
    who = "QOS" if limit["whose"] == "QOS" else "account"
    if kind == "Min" or (kind == "Max" and re.search(r"PerJob|PerNode", what)):
        return Hint(NEVER, way)
    if "Jobs" in what or "Submit" in what:
        return Hint(LATER, _OWN if kind == "Max" else f"until others of the {who} end")
    if kind == "Max":
        return Hint(LATER, f"until others of yours end; if none runs, one alone is too large: {way}")
    if re.search(r"(?<!Run)(Minutes|Mins)", what):
        return Hint(STUCK, f"the hours of the {who} are used up: ask for more, or another launch.{who.lower()}")
    return Hint(LATER, f"until others of the {who} end; if none runs, one alone is too large: {way}")
