"""The thread that reads ahead. Events order what happens, so that no test depends on time."""

import contextvars
import threading

import numpy as np
import pytest

from xpnet.sources.lookahead import ITEMS, LookAhead

SOON = 30  # seconds after which a waiting test fails


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "xpnet look-ahead"]


def ahead(items, limit=1):
    return LookAhead((item for item in items), lambda item: 1, limit)


def test_items_come_in_their_order_and_the_thread_ends():
    with ahead(range(100), limit=7) as items:
        assert list(items) == list(range(100))
        assert next(items, None) is None
    assert not threads()


def test_the_next_item_is_read_while_the_caller_uses_one():
    begun = [threading.Event() for _ in range(3)]

    def read():
        for i, event in enumerate(begun):
            event.set()
            yield i

    with ahead(read()) as items:
        assert next(items) == 0
        assert begun[1].wait(SOON)  # without another call
        assert not begun[2].is_set()


@pytest.mark.parametrize(("limit", "waiting"), [(3, 3), (10_000, ITEMS)])
def test_the_thread_stops_at_the_limit(limit, waiting):
    read, enough = [], threading.Event()

    def items():
        for i in range(1000):
            read.append(i)
            if len(read) == waiting:
                enough.set()
            yield i

    with ahead(items(), limit) as source:
        assert enough.wait(SOON)
        source._thread.join(0.05)  # time to read too much
        assert len(read) == waiting


def test_an_error_is_raised_where_its_item_is_due():
    def items():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    with ahead(items(), limit=10) as source:
        assert [next(source), next(source)] == [1, 2]
        with pytest.raises(OSError, match="the disk is gone"):
            next(source)
    assert not threads()


def test_an_error_at_the_close_of_a_generator_is_not_lost():
    def items():
        yield 1
        raise KeyError("last words")

    with pytest.raises(KeyError, match="last words"), ahead(items()) as source:
        list(source)


def test_leaving_the_block_closes_the_generator_and_ends_the_thread():
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    with ahead(items()) as source:
        next(source)
    assert closed == ["xpnet look-ahead"]
    assert not threads()


def test_ctrl_c_while_the_caller_waits_does_not_wait_for_the_source():
    """Such as a connection that has stopped. The thread ends when the source returns."""
    released = threading.Event()

    def items():
        released.wait(SOON)
        yield from range(5)

    def interrupted(condition):
        raise KeyboardInterrupt

    source = ahead(items())
    source._changed.wait_for = interrupted
    with pytest.raises(KeyboardInterrupt), source:
        next(source)
    assert threads()
    released.set()
    source._thread.join(SOON)
    assert not threads()


def test_the_thread_has_the_settings_of_the_caller():
    """NumPy's error state and the current backend are context variables."""
    name = contextvars.ContextVar("name", default="nobody")
    name.set("caller")

    def items():
        yield name.get(), np.geterr()["over"]

    with np.errstate(over="ignore"), ahead(items()) as source:
        assert next(source) == ("caller", "ignore")
