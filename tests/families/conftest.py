"""What the tests of this folder share."""

import pytest


@pytest.fixture(scope="session")
def theirs():
    """The module of that name; without PyTorch and transformers, its tests are skipped."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import theirs

    return theirs
