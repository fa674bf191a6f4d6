"""Frontiers by a number stand in the order of that number."""

from structlin.laws.report import curves
from tests.laws.tables import laws_of, two


def test_frontiers_by_a_number_stand_in_its_order() -> None:
    laws = laws_of(two(), bootstrap=20)
    for values, order in (
        ({"dense": 1.0, "btt": 0.5}, ["btt", "dense"]),
        ({"dense": 0.2, "btt": 0.5}, ["dense", "btt"]),
    ):
        series = curves.by_number(laws, ["dense", "btt"], values, "nu")
        assert list(dict.fromkeys(one.variant for one in series)) == order
        assert [one.label for one in series if one.label] == [f"{name}  nu = {values[name]:.2f}" for name in order]
