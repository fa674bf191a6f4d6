"""Words of real SLURM commands (22.05), recorded on the development cluster, are read right."""

import time
from collections.abc import Sequence

import pytest

from structlin.launch.slurm.controller import (
    Controller,
    ControllerError,
    End,
    Label,
    Live,
    NoAnswer,
    elements,
    environment,
)

CONFIG = """Configuration data as of 2026-11-22T02:46:00
AccountingStorageType   = accounting_storage/slurmdbd
MaxArraySize            = 11
MaxJobCount             = 10000
"""
QUEUE = """Welcome to the cluster! Maintenance on Monday | read the news
structlin|1_0|RUNNING|2026-11-22T02:46:00|structlin:0123456789abcdef|demo|None
structlin|1_[1-3,7%2]|PENDING|2026-11-22T02:46:00|structlin:0123456789abcdef|demo|JobArrayTaskLimit
structlin|9|PENDING|N/A|a stranger's | comment|other|BeginTime
structlin|12_4|COMPLETING|2026-11-22T02:46:00|(null)|demo|None
structlin|13|RUNN
"""
ACCOUNTS = """** accounting is delayed by a minute **
1_0|REQUEUED|0:0||2026-11-22T02:46:00|demo|n1|structlin:0123456789abcdef
1_0.batch|CANCELLED|0:15|12340K|2026-11-22T02:46:00|batch|n1|
1_0.0|CANCELLED|0:15|383836K|2026-11-22T02:46:00|bash|n1|
1_0|RUNNING|0:0|
1_3|FAILED|0:9||2026-11-22T02:46:00|demo|n1
1_3.batch|FAILED|1:0|12M|2026-11-22T02:46:00|batch|n1||one|more
1_3.0|FAILED|0:9|1.5G
1_4|CANCELLED by 0|0:0|
1_[5-6]|PENDING|0:0|
1_7|FAILED
1_8
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
    answering = controller({"scontrol": CONFIG, "squeue": "news\nstructlin|1\nstructlin|2_0\nstructlin|2_1\n"})
    limits = answering.limits()
    assert (limits.array_size, limits.max_jobs) == (11, 10000)
    # An array fits while the jobs stay below the limit.
    assert answering.room(limits) == 10000 - 3 - 1


def test_one_call_says_what_lives_and_waiting_tasks_are_counted_one_by_one() -> None:
    calls: list[Sequence[str]] = []
    answering = controller({"squeue": QUEUE}, calls)
    live = answering.live(["ada", "bob", "ada"])
    assert [line[:7] for line in answering.skipped] == ["Welcome", "structl"]
    assert live["1_3"].label == Label("demo", time.mktime((2026, 11, 22, 2, 46, 0, 0, 0, -1)), "0123456789abcdef")
    assert live["9"].label == Label("other")
    assert live["12_4"].label.token == ""
    assert len(calls) == 1
    assert "--user=ada,bob" in calls[0]
    assert set(live) == {"1_0", "1_1", "1_2", "1_3", "1_7", "9", "12_4"}
    assert live["1_7"] == Live("PENDING", "JobArrayTaskLimit")
    assert live["9"].is_waiting
    assert not live["1_0"].is_waiting


def test_every_end_is_kept_with_the_memory_of_its_steps() -> None:
    answering = controller({"sacct": ACCOUNTS})
    ends = answering.ends(["1"])
    assert answering.skipped == ["** accounting is delayed by a minute **", "1_7|FAILED", "1_8"]
    assert ends["1_0"][0].label.token == "0123456789abcdef"
    assert ends["1_3"][0].node == "n1"
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


@pytest.mark.parametrize("size", ["0", "1"])
def test_a_cluster_without_arrays_takes_one_element_at_a_time(size: str) -> None:
    assert controller({"scontrol": CONFIG.replace("= 11", f"= {size}")}).limits().array_size == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("17\n", ("17", "")),
        ("17;b\n", ("17", "b")),
        ("sbatch: your job 5 costs 12 units\nplease see job 99 in the news\n17\n", ("17", "")),
        ("Submitted batch job 17\n", ("17", "")),
        ("Submitted batch job 17 on cluster b\n\nBye\n", ("17", "b")),
    ],
)
def test_the_number_of_a_job_stands_alone_in_its_line(answer: str, expected: tuple[str, str]) -> None:
    assert controller({"sbatch": answer}).submit("script") == expected


@pytest.mark.parametrize("answer", ["", "see job 99 in the news\n", "Queued.\n"])
def test_an_answer_without_a_number_leaves_it_in_doubt(answer: str) -> None:
    with pytest.raises(NoAnswer, match="names no job"):
        controller({"sbatch": answer}).submit("script")


def test_every_command_names_the_cluster_it_is_for() -> None:
    calls: list[Sequence[str]] = []
    other = controller({"squeue": "CLUSTER: b\n" + QUEUE, "sacct": "", "scancel": ""}, calls).on("b")
    assert "1_0" in other.live(["ada"])
    other.ends(["1"])
    other.cancel(["1_0"])
    assert [call[1] for call in calls] == ["--clusters=b"] * 3
    assert other.name == "b"
