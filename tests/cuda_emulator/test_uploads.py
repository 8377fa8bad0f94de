"""Uploads on the side stream, on streams that run as late as CUDA allows: a wait that is missing gives wrong values."""

from tests.cuda_emulator.test_emulator import run

BEGIN = """
        import cupy, fakecuda, numpy as np
        from xpnet.backend import make_backend
        backend = make_backend("cupy")
        side, computing = importlib.import_module("xpnet.backend.cupy").upload_stream(0), cupy.cuda.Stream.null
        send = lambda value: backend.send({"x": np.full((4, 3), value, "float32")})
        cupy.cuda.Device().synchronize()
"""


def lazily(script):
    return run("import importlib" + BEGIN.replace("\n        ", "\n") + script, FAKECUDA_LAZY="1")


def test_the_copy_is_on_the_side_stream_and_the_computing_stream_waits_for_it():
    script = """
begin = fakecuda.counts()["uploads"]
for work in (lambda: send(1), computing.synchronize, side.synchronize):
    work()
    print(fakecuda.counts()["uploads"] - begin)
x = send(2)()["x"]
computing.synchronize()
print(fakecuda.counts()["uploads"] - begin, *set(x.get().ravel().tolist()))
"""

    assert lazily(script) == ["0", "0", "1", "2", "2.0"]


def test_a_later_upload_waits_until_the_memory_has_been_read():
    """The second upload takes the memory of the first, which the computing stream has not copied yet."""
    script = """
addresses, asarray = [], cupy.asarray
cupy.asarray = lambda x: (made := asarray(x), addresses.append(made.data.ptr))[0]
first = send(1)()["x"]
receive = send(2)
side.synchronize()
print(len(set(addresses)), *set(first.get().ravel().tolist()), *set(receive()["x"].get().ravel().tolist()))
"""

    assert lazily(script) == ["1", "1.0", "2.0"]


def test_pinned_memory_is_kept_until_its_copy_has_ended():
    script = """
waiting = [send(i) for i in range(5)]
print(*[int(receive()["x"].get().max()) for receive in waiting])
for i in range(5):
    send(-1)
    x = send(i)()["x"]
    print(int(x.get().min()))
"""

    assert lazily(script) == [str(i) for i in range(5)] * 2
