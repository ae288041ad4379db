import pytest

from tests.langchain_workersai.face import AsyncFace, Face


@pytest.fixture(params=[Face(), AsyncFace()], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    given: Face = request.param
    return given
