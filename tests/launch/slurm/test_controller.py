"""Words of real SLURM commands (22.05), recorded on the development cluster, are read right."""

from collections.abc import Sequence

import pytest

from structlin.launch.slurm.controller import Controller, ControllerError, End, Live, elements, environment

CONFIG = """Configuration data as of 2026-11-22T02:46:00
AccountingStorageType   = accounting_storage/slurmdbd
MaxArraySize            = 11
MaxJobCount             = 10000
"""
QUEUE = """1_0|RUNNING|None
1_[1-3,7%2]|PENDING|JobArrayTaskLimit
9|PENDING|BeginTime
12_4|COMPLETING|None
"""
ACCOUNTS = """1_0|REQUEUED|0:0|
1_0.batch|CANCELLED|0:15|12340K
1_0.0|CANCELLED|0:15|383836K
1_0|RUNNING|0:0|
1_3|FAILED|0:9|
1_3.batch|FAILED|1:0|12M
1_3.0|FAILED|0:9|1.5G
1_4|CANCELLED by 0|0:0|
1_[5-6]|PENDING|0:0|
"""


def controller(answers: dict[str, str], calls: list[Sequence[str]] | None = None) -> Controller:
    def run(command: Sequence[str]) -> str:
        if calls is not None:
            calls.append(command)
        if command[0] not in answers:
            raise ControllerError(f"{command[0]} is not here")
        return answers[command[0]]

    return Controller(run)


def test_limits_are_read_from_the_configuration() -> None:
    answering = controller({"scontrol": CONFIG, "squeue": "1\n2_0\n2_1\n"})
    limits = answering.limits()
    assert (limits.array_size, limits.max_jobs) == (11, 10000)
    # An array fits while the jobs stay below the limit.
    assert answering.room(limits) == 10000 - 3 - 1


def test_one_call_says_what_lives_and_waiting_tasks_are_counted_one_by_one() -> None:
    calls: list[Sequence[str]] = []
    live = controller({"squeue": QUEUE}, calls).live(["ada", "bob", "ada"])
    assert len(calls) == 1
    assert "--user=ada,bob" in calls[0]
    assert set(live) == {"1_0", "1_1", "1_2", "1_3", "1_7", "9", "12_4"}
    assert live["1_7"] == Live("PENDING", "JobArrayTaskLimit")
    assert live["9"].is_waiting
    assert not live["1_0"].is_waiting


def test_every_end_is_kept_with_the_memory_of_its_steps() -> None:
    ends = controller({"sacct": ACCOUNTS}).ends(["1"])
    assert ends["1_0"] == [End("REQUEUED", "0:0", 383836 * 1024), End("RUNNING", "0:0", 0)]
    assert ends["1_3"] == [End("FAILED", "0:9", int(1.5 * 1024**3))]
    assert ends["1_4"][0].state == "CANCELLED"
    assert ends["1_5"] == ends["1_6"] == [End("PENDING", "0:0", 0)]


def test_many_jobs_take_few_calls() -> None:
    calls: list[Sequence[str]] = []
    controller({"sacct": ""}, calls).ends([str(number) for number in range(1200)])
    assert len(calls) == 3


def test_without_sacct_nothing_is_known_of_ends() -> None:
    assert controller({}).ends(["1"]) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("17", ["17"]),
        ("17_3", ["17_3"]),
        ("17_[0,3-5%2]", ["17_0", "17_3", "17_4", "17_5"]),
        ("1_[0-4:2]", ["1_0", "1_2", "1_4"]),
    ],
)
def test_names_of_squeue(name: str, expected: list[str]) -> None:
    assert list(elements(name)) == expected


def test_a_command_hears_nothing_of_an_allocation_around_it() -> None:
    found = environment({"SLURM_JOB_ID": "1", "SBATCH_QOS": "x", "SLURM_CONF": "/etc/x", "HOME": "/root"})
    assert found["SLURM_CONF"] == "/etc/x"
    assert found["HOME"] == "/root"
    assert found["SLURM_BITSTR_LEN"] == "0"
    assert not {"SLURM_JOB_ID", "SBATCH_QOS"} & set(found)
