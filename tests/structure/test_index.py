"""The indices: as many as there are sets of factors, those of two in their Greek order, and names that read back."""

import pytest

from structlin.structure.index import GREEK, Index, indices, places


@pytest.mark.parametrize(("factors", "count"), [(1, 2), (2, 7), (3, 18), (4, 41)])
def test_there_are_as_many_as_sets_of_factors(factors: int, count: int) -> None:
    own = indices(factors)
    assert len(set(own)) == len(own) == count == 2 * (2**factors - 1) + 2**factors - 1 - factors
    assert [index.side for index in own] == sorted((index.side for index in own), key="xyr".index)
    assert all(len(index.factors) > 1 for index in own if index.side == "r")
    assert places(factors) == {index.name: place for place, index in enumerate(own)}


def test_two_factors_stand_in_their_greek_order() -> None:
    assert " ".join(GREEK[index.name] for index in indices(2)) == "alpha beta gamma delta epsilon phi rho"


def test_sets_of_factors_stand_in_binary_order() -> None:
    wanted = "x1 x2 x12 x3 x13 x23 x123 y1 y2 y12 y3 y13 y23 y123 r12 r13 r23 r123"
    assert " ".join(index.name for index in indices(3)) == wanted


@pytest.mark.parametrize("factors", [1, 2, 3, 4])
def test_a_name_reads_back(factors: int) -> None:
    for index in indices(factors):
        assert Index.parse(index.name) == Index.parse(str(index)) == index
        assert [number in index for number in range(1, 5)] == [number in index.factors for number in range(1, 5)]


@pytest.mark.parametrize("name", ["", "x", "z1", "1x", "x0", "x5", "x12345", "x21", "x11", "r1", "X1", "x1 ", "x1,2"])
def test_what_is_no_index_is_refused_by_what_one_is(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^'{name}' is no index; write x, y or r .* x1, x12, y3, r23$"):
        Index.parse(name)
