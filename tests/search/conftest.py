"""One whole search that several tests read."""

import pytest

from structlin.search.course import Course
from tests.search.store import Planted, request, searched


@pytest.fixture(scope="session")
def whole() -> tuple[Course, Planted]:
    """A search that is over, and its store; neither is to be changed."""
    store = Planted()
    return searched(request(), store), store
