"""What a reason of squeue means for whoever waits: every name of SLURM's list of job reason codes has a row."""

import pytest

from structlin.launch.slurm.reasons import LATER, NEVER, STUCK, hint_of, way_out

RESOURCES = ("BB", "Billing", "Energy", "GRES", "License", "Mem", "Node", "Unknown", "Cpu")

# (fate, a word of the way out, reasons as squeue prints them)
CASES = [
    (NEVER, "launch.max_minutes", ["PartitionTimeLimit", "QOSMaxWallDurationPerJobLimit", "QOSTimeLimit"]),
    (NEVER, "launch.max_minutes", ["AssocMaxWallDurationPerJobLimit", "QOSMaxCpuMinutesPerJobLimit", "DeadLine"]),
    (NEVER, "launch.constraint", ["BadConstraints"]),
    (NEVER, "launch.partition", ["PartitionNodeLimit", "PartitionConfig"]),
    (NEVER, "its log", ["DependencyNeverSatisfied"]),
    (NEVER, "launch.account", ["InvalidAccount", "AccountNotAllowed"]),
    (NEVER, "launch.qos", ["InvalidQOS", "QOSNotAllowed", "QOSMaxBillingPerJob"]),
    (NEVER, "reservation", ["ReservationDeleted"]),
    (NEVER, "less memory", ["MaxMemPerLimit", "QOSMaxMemoryPerNode", "AssocMaxMemPerJob"]),
    (NEVER, "fewer GPUs", ["QOSMaxGRESPerJob", "AssocMaxGRESPerNode"]),
    (NEVER, "fewer cores", ["QOSMaxCpuPerJobLimit", "AssocMaxCpuPerNode"]),
    (NEVER, "launch.nodes", ["QOSMaxNodePerJobLimit", "AssocMaxNodePerJobLimit", "QOSMinNode"]),
    (NEVER, "more GPUs", ["QOSMinGRES", "QOSMinBilling"]),
    (NEVER, "more cores", ["QOSMinCpuNotSatisfied"]),
    (NEVER, "more memory", ["QOSMinMemory"]),
    (STUCK, "scontrol release", ["JobHeldUser", "JobHoldMaxRequeue", "launch failed requeued held"]),
    (STUCK, "scontrol release", ["launch_failed_requeued_held", "job_requeued_in_held_state"]),
    (STUCK, "support", ["JobHeldAdmin"]),
    (STUCK, "maintenance", ["ReqNodeNotAvail", "ReqNodeNotAvail, UnavailableNodes:n[1-3]", "NodeDown"]),
    (STUCK, "maintenance", ["ReqNodeNotAvail,_Reserved_for_maintenance"]),
    (STUCK, "sinfo", ["Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions"]),
    (STUCK, "launch.partition", ["PartitionDown", "PartitionInactive", "FrontEndDown"]),
    (STUCK, "launch.account", ["AssocGrpCPUMinutesLimit", "AssocGrpGRESMinutes", "AssocGrpBillingMinutes"]),
    (STUCK, "launch.qos", ["QOSGrpCPUMinutesLimit", "QOSGrpGRESMinutes", "QOSGrpMemoryMinutes", "QOSUsageThreshold"]),
    (STUCK, "sacctmgr", ["AccountingPolicy"]),
    (LATER, "launch.max_running", ["QOSMaxJobsPerUserLimit", "AssocMaxJobsLimit", "MaxJobsPerAccount", "QOSJobLimit"]),
    (LATER, "launch.max_running", ["AssociationJobLimit", "JobArrayTaskLimit", "AssocMaxSubmitJobLimit"]),
    (LATER, "others of the account", ["AssocGrpJobsLimit", "AssocGrpCPURunMinutesLimit", "AssocGrpWallLimit"]),
    (LATER, "others of the QOS", ["QOSGrpJobsLimit", "QOSGrpGRES", "QOSGrpNodeLimit", "QOSGrpSubmitJobsLimit"]),
    (LATER, "too large: ask for fewer cores", ["QOSMaxCpuPerUserLimit", "QOSGrpCpuLimit", "MaxCpuPerAccount"]),
    (LATER, "too large: ask for fewer GPUs", ["QOSMaxGRESPerUser", "AssocGrpGRES"]),
    (LATER, "licence", ["Licenses"]),
]
PLAIN = ["Priority", "Resources", "None", "Dependency", "BeginTime", "Reservation", "Cleaning", "SchedDefer", ""]


@pytest.mark.parametrize(("fate", "word", "reason"), [(fate, word, one) for fate, word, all_ in CASES for one in all_])
def test_a_reason_has_one_fate_and_a_way_out(fate: str, word: str, reason: str) -> None:
    hint = hint_of(reason)
    assert hint.fate == fate
    assert word in hint.way


@pytest.mark.parametrize("reason", [*PLAIN, "a reason of tomorrow", "on cluster b, which does not answer here"])
def test_what_just_waits(reason: str) -> None:
    assert (hint_of(reason).fate, hint_of(reason).way) == (LATER, "")


@pytest.mark.parametrize("what", RESOURCES)
@pytest.mark.parametrize(
    ("name", "fate"),
    [
        ("AssocGrp{}", LATER),
        ("QOSGrp{}Minutes", STUCK),
        ("AssocGrp{}RunMinutes", LATER),
        ("AssocMax{}PerJob", NEVER),
        ("QOSMax{}PerNode", NEVER),
        ("QOSMax{}MinutesPerJob", NEVER),
        ("QOSMax{}PerUser", LATER),
        ("Max{}PerAccount", LATER),
        ("QOSMin{}", NEVER),
    ],
)
def test_a_limit_is_read_by_the_parts_of_its_name(name: str, fate: str, what: str) -> None:
    assert hint_of(name.format(what)).fate == fate


def test_a_minimum_asks_for_more_and_a_maximum_for_less() -> None:
    for what in ("Memory", "CpuNotSatisfied", "GRES", "Node"):
        assert "more" in way_out(f"QOSMin{what}")
        assert "more" not in way_out(f"QOSMax{what}PerJob")
