"""How a plan looks: every number of the table, in its place."""

import structlin as sl
from structlin.structure import describe

LINE = "64 -> 256, tga,fga,feg->tfe, rank at most 64, 3,072 parameters, 3,072 MACs a row"
TABLE = """\
64 -> 256   tga,fga,feg->tfe   a=8 g=8 e=16 f=16

                          this         dense
parameters               3,072        16,384    18.8%
MACs a row               3,072        16,384    18.8%
rank at most                64            64     100%
nu    compute            0.500             1
omega sharing            0.000             0
psi   rank               1.000             1

factor      parameters  fan-in  fan-out       std    rate
A                1,024       8       16    0.3536       4
B                2,048       8       16    0.3536       4"""


def test_a_plan_as_it_is_printed() -> None:
    plan = sl.plan("btt", 64, 256)
    assert describe.line(plan) == LINE
    assert describe.table(plan) == TABLE
