"""Names that are imported when they are used."""

import xpnet


def test_names_that_wait_for_their_use_are_listed():
    """They are listed for help and completion. No arrays, so no backend."""
    for package in (xpnet, xpnet.layers, xpnet.metrics):
        assert set(package.__all__) <= set(dir(package))
