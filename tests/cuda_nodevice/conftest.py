"""What tests of the device arrays share."""

import pytest


@pytest.fixture
def device():
    """Memory of the host stands in for a GPU's."""
    from fakes.host_device import Device  # needs numba.cuda, without which the tests are skipped

    with Device().installed() as device:
        yield device
