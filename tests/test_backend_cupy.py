"""The CuPy backend, on a GPU or on the emulated device of `tests.cuda_emulator`. Without one of them, these tests are skipped.

They test names of backends, devices and options; whether eager and captured steps agree with NumPy's; capture and replay; the
kernel of an optimizer's rule; and the arguments of cuBLAS.
"""

import functools
import gc
import importlib
import pickle
import sys
import threading
import time
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xpnet
from tests.benchmarks import gpu_probes
from tests.test_graph_safety import LOSSES, METRICS, NETWORKS, OPTIMIZERS, ROW, Case
from tests.test_sources_stream import Iterable
from xpnet import SGD, Adam, Model
from xpnet.backend import Backend, cublas, make_backend, namespace, to_numpy
from xpnet.backend.base import unregister_namespace
from xpnet.backend.cuda_kernels import CudaKernels
from xpnet.backend.fusion import kernels_of, map_elements, map_elements_to_trees, unregister_kernels
from xpnet.layers import BatchNormalization, Dense, Dropout, ReLU, Rescaling
from xpnet.tree import leaves, map_leaves

SMALL = [Dense(4), ReLU(), Dropout(0.25), Dense(3)]
WAITING_IS_ANNOUNCED = pytest.mark.filterwarnings("ignore:.*allow_synchronize")  # CuPy warns that it is experimental


@functools.cache
def reason_to_skip():
    try:
        make_backend("cupy")
    except xpnet.BackendNotAvailableError as error:
        return str(error)
    return None


@pytest.fixture
def cupy():
    if reason := reason_to_skip():
        pytest.skip(reason)
    module = importlib.import_module("cupy")
    yield module
    sys.modules["xpnet.backend.cupy"].graph_scan.cache_clear()
    for kind in module.ndarray.__subclasses__():  # each test's array type for graphs holds a cuBLAS workspace of 32 MB
        unregister_namespace(kind)
        unregister_kernels(kind)


def no_waiting():
    """Return a ``with`` block in which CuPy raises an error if it waits for the device."""
    return importlib.import_module("cupyx").allow_synchronize(False)


class SpyOnCublas:
    """Forwards calls to the library, and records their arguments."""

    def __init__(self):
        self.library, self.calls = cublas.load_library(), []

    def __getattr__(self, name):
        function = getattr(self.library, name)

        def call(*arguments):
            self.calls.append((name, *arguments))
            return function(*arguments)

        return call

    @property
    def products(self):
        return [call for call in self.calls if "Gemm" in call[0]]


@pytest.fixture
def spy(cupy, monkeypatch):
    library = SpyOnCublas()
    monkeypatch.setattr(cublas, "load_library", lambda: library)
    return library


def both(graphs, layers, shape, **settings):
    """Run the same chunk of steps on CuPy and on NumPy. Return (state, records) of each, on the host."""
    expected = Case(make_backend("numpy"), layers, shape, **settings).scan()
    case = Case(make_backend("cupy", graphs=graphs), layers, shape, **settings)
    case.scan()  # compiles
    case = Case(case.backend, layers, shape, **settings)
    with no_waiting():
        results = case.scan()
    return map_leaves(to_numpy, results), expected


def assert_close(results, expected, tolerance=1e-5):
    for value, wanted in zip(leaves(results), leaves(expected), strict=True):
        assert value.dtype == wanted.dtype
        scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))  # float32, and some sums round in another order
        np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance * scale)


def assert_equal(results, expected):
    for value, wanted in zip(leaves(results), leaves(expected), strict=True):
        np.testing.assert_array_equal(to_numpy(value), to_numpy(wanted))


GRAPHS = pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])


# ---------------------------------------------------------------------- chunks of steps, without waiting, equal NumPy's


@WAITING_IS_ANNOUNCED
@GRAPHS
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer(name, graphs, cupy):
    shape, layers = NETWORKS[name]
    # rotation rounds to pixels, so a difference in the last digit may become a difference of a pixel
    tolerance = 1e-2 if name == "image" else 1e-4

    assert_close(*both(graphs, layers, shape), tolerance)


@WAITING_IS_ANNOUNCED
@GRAPHS
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_every_optimizer(optimizer, graphs, cupy):
    assert_close(*both(graphs, SMALL, ROW, optimizer=optimizer))


@WAITING_IS_ANNOUNCED
@GRAPHS
@pytest.mark.parametrize("weight", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_metric(loss, weight, graphs, cupy):
    layers = [Dense(6), xpnet.layers.Softplus()]

    assert_close(*both(graphs, layers, ROW, loss=loss, metrics=METRICS.get(loss, ()), weight=weight))


@GRAPHS
def test_float64(graphs, cupy):
    case = Case(make_backend("cupy", dtype="float64", graphs=graphs), SMALL, ROW)
    expected = Case(make_backend("numpy", dtype="float64"), SMALL, ROW).scan()

    assert_close(map_leaves(to_numpy, case.scan()), expected, 1e-12)


@GRAPHS
def test_fit(graphs, cupy):
    """The history is the same as on NumPy, with short last batches, validation and several fits."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.integers(0, 3, 50)
    models = []
    for backend in ("numpy", make_backend("cupy", graphs=graphs)):
        # No bias before batch normalization, because its gradient is only rounding noise, and Adam still takes full-size steps.
        layers = [Dense(8, use_bias=False), BatchNormalization(), ReLU(), Dropout(0.2), Dense(3)]
        model = Model(layers, "softmax_cross_entropy", Adam(0.01), metrics=["accuracy"], backend=backend)
        model.fit(x, y, batch_size=8, epochs=4, verbose=0, validation_data=(x, y))
        model.fit(x, y, batch_size=8, epochs=6, initial_epoch=4, verbose=0)
        models.append(model)

    for name, values in models[0].history.history.items():
        np.testing.assert_allclose(models[1].history.history[name], values, rtol=1e-4)
    assert_close(map_leaves(to_numpy, models[1].state), models[0].state, 1e-4)


@WAITING_IS_ANNOUNCED
def test_functions_that_array_api_compat_has_wait(cupy):
    """xpnet's versions do not wait for the device. CuPy reports that those of array-api-compat do."""
    backend = make_backend("cupy")
    xp = backend.namespace
    values = np.array([-2.0, 0.0, np.nan, 3.0], "float32")
    x = backend.asarray(values)
    compat = importlib.import_module("array_api_compat.cupy")
    for waits in (lambda: compat.sign(x), lambda: compat.clip(x, -1.0, 1.0)):
        with pytest.raises(importlib.import_module("cupyx").DeviceSynchronized), no_waiting():
            waits()
    with no_waiting():
        results = xp.sign(x), xp.clip(x, -1.0, 1.0), xp.clip(x, max=1.0), xp.vecdot(x[:2], x[:2])

    np.testing.assert_array_equal(results[0].get(), np.sign(values))
    np.testing.assert_array_equal(results[1].get(), np.clip(values, -1, 1))
    np.testing.assert_array_equal(results[2].get(), np.minimum(values, 1))
    assert results[3].get() == 4
    np.testing.assert_array_equal(xp.sign(backend.asarray(np.array([-3, 0, 5]))).get(), [-1, 0, 1])


# ---------------------------------------------------------------------- explanations of errors


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (35, r"driver, which is missing or older.*nvidia-smi.*Received: .*InsufficientDriver"),
        (100, r"Check CUDA_VISIBLE_DEVICES.*reports no device.*Received: "),
        (999, r"Check the NVIDIA driver"),
    ],
)
def test_an_error_of_the_driver(cupy, monkeypatch, status, said):
    runtime = cupy.cuda.runtime

    def fails():
        raise runtime.CUDARuntimeError(status)

    monkeypatch.setattr(runtime, "getDeviceCount", fails)

    with pytest.raises(xpnet.BackendNotAvailableError, match=said):
        make_backend("cupy")


def test_no_device(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)

    with pytest.raises(xpnet.BackendNotAvailableError, match=r"Check CUDA_VISIBLE_DEVICES.*Received: a driver"):
        make_backend("cupy")


@pytest.mark.parametrize("device", [64, -1, "cuda:77", "cuda:one", "cpu"])
def test_unknown_device(cupy, device):
    with pytest.raises(
        xpnet.BackendNotAvailableError, match=r"of the \d CUDA device\(s\) that CuPy finds, numbered from 0.*Received"
    ):
        make_backend("cupy", device=device)


def test_devices_by_name_and_number(cupy):
    chosen = (0, "0", "cuda:0", cupy.cuda.Device(0), None, "cuda", "gpu")

    assert [make_backend("cupy", device=device).device.id for device in chosen] == [0] * 7


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("Failure finding libcublas.so.13\n  listdir(...)"), "Failure finding libcublas.so.13"),
        (RuntimeError("CuPy failed to load libnvrtc.so.13"), "libnvrtc"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_library_that_does_not_load(cupy, monkeypatch, error, said):
    def fails(*args, **settings):
        raise error

    make_backend("cupy")  # imports the module under test
    monkeypatch.setattr(sys.modules["xpnet.backend.cupy"].cupy, "ones", fails)

    with pytest.raises(
        xpnet.BackendNotAvailableError, match=rf"cannot compute on it. .*pip install.*Received: .*{said}"
    ):
        make_backend("cupy")


def test_graphs_without_cublas(cupy, monkeypatch):
    def fails():
        raise RuntimeError("Failure finding libcublas.so.13")

    monkeypatch.setattr(cublas, "load_library", fails)

    with pytest.raises(
        xpnet.BackendNotAvailableError, match=r"graphs=True is not available. .*Received: Failure finding libcublas"
    ):
        make_backend("cupy", graphs=True)


def test_options_are_for_backends_that_know_them(cupy):
    with pytest.raises(ValueError, match="The backend numpy has no option graphs"):
        make_backend("numpy", graphs=True)
    with pytest.raises(ValueError, match="no other arguments may be given"):
        make_backend(make_backend("cupy"), graphs=True)
    with xpnet.use_backend("cupy", graphs=True) as backend:
        assert backend.graphs
    assert make_backend("auto", graphs=True) == backend
    assert repr(backend) == "<xpnet backend cupy on <CUDA Device 0>, float32, graphs>"


def test_a_backend_survives_pickling_and_hashing(cupy):
    for graphs in (False, True):
        backend = make_backend("cupy", graphs=graphs)

        assert pickle.loads(pickle.dumps(backend)) == backend
        assert {backend: 1}[make_backend("cupy", graphs=graphs)] == 1


# ---------------------------------------------------------------------- capture and replay


def only_recording():
    """Return the only captured step in the scan of device 0."""
    (recording,) = graph_scan().recordings.values()
    return recording


def graph_scan(float_name="float32"):
    return sys.modules["xpnet.backend.cupy"].graph_scan(0, float_name)


def small_case(**settings):
    return Case(make_backend("cupy", graphs=True), SMALL, ROW, **settings)


def repeated(case, steps):
    """Return the case's batches, repeated up to this number of steps."""
    return {name: np.concatenate([values] * steps)[:steps] for name, values in case.batches.items()}


@pytest.fixture
def log(cupy, monkeypatch):
    """Return a list that records calls of stream methods in order."""
    calls = []

    def noting(name, method):
        def call(stream, *arguments):
            calls.append((name, stream.ptr))
            return method(stream, *arguments)

        return call

    for name in ("wait_event", "begin_capture", "end_capture"):
        monkeypatch.setattr(cupy.cuda.Stream, name, noting(name, getattr(cupy.cuda.Stream, name)))
    return calls


def test_two_steps_are_run_and_the_third_is_captured(log):
    case = small_case()
    stream, outside = graph_scan().stream.ptr, 0
    case.scan()

    first, last = ("wait_event", stream), ("wait_event", outside)
    assert log == [first, ("begin_capture", stream), ("end_capture", stream), last]
    assert only_recording().runs == 2
    log.clear()
    case.scan()
    assert log == [first, last]


def test_nothing_is_computed_during_capture(cupy):
    """Capturing the third step does not add a step."""
    case = small_case()

    assert_equal(case.scan(), Case(make_backend("cupy"), SMALL, ROW).scan())


def test_rows_that_no_kernel_of_ours_gathers(cupy):
    """CuPy gathers float16 rows. It must use a copy of the step's number, because the end of the step increments the counter."""
    backend = make_backend("cupy", graphs=True)
    data = cupy.arange(12, dtype="float16").reshape(6, 2)
    index = np.arange(10).reshape(5, 2) % 6

    def step(state, batch):
        return state + 1.0, batch["x"] * 1.0

    state, rows = backend.scan(step, cupy.zeros(3, "float32"), {"index": index}, {"x": data})

    np.testing.assert_array_equal(state.get(), 5)
    np.testing.assert_array_equal(rows.get(), data.get()[index])


def test_replay_equals_steps_run_as_they_are_while_others_use_the_memory(cupy, monkeypatch):
    """50 steps run in chunks. Between the chunks, arrays are created and released, and no graph writes into them."""
    case, plain = small_case(optimizer=Adam(0.05)), small_case(optimizer=Adam(0.05))
    batches = repeated(case, 50)
    results = run_in_chunks(case, batches, [1, 1, 7, 20, 1, 20])
    monkeypatch.setattr(sys.modules["xpnet.backend.cuda_graph"], "WARM_UP", 10**9)
    graph_scan().recordings.clear()
    expected = run_in_chunks(plain, batches, [50])

    assert_equal(results, expected)


def run_in_chunks(case, batches, lengths):
    """Return the last state and all records, on the host."""
    state, start, records, others = case.state, 0, [], []
    for length in lengths:
        chunk = {name: values[start : start + length] for name, values in batches.items()}
        state, record = case.backend.scan(case.step, state, chunk, case.data)
        records.append(map_leaves(to_numpy, record))
        before = to_numpy(others[-1]) if others else None
        others = [case.backend.asarray(np.full(n, float(start + n))) for n in (3, 8, 300, 3)]
        others.append(others[0] * 2.0 + others[-1])
        if before is not None:
            assert np.all(before == before[0])
        start += length
        kept = map_leaves(to_numpy, state)
    assert_equal(state, kept)
    return map_leaves(to_numpy, state), map_leaves(lambda *parts: np.concatenate(parts), *records)


def test_without_a_pool_of_its_own_a_graph_is_overwritten(cupy, monkeypatch):
    """This shows why graphs need a separate pool: with temporaries in the shared pool, a replay overwrites other arrays."""
    case = small_case()
    graph_scan().pool = SimpleNamespace(malloc=cupy.get_default_memory_pool().malloc)
    batches = {name: values[:3] for name, values in case.batches.items()}
    state, _ = case.backend.scan(case.step, case.state, batches, case.data)
    with graph_scan().stream:  # a pool reuses a block only on the stream that used it
        taken = [case.backend.asarray(np.zeros(n)) for n in (1, 3, 4, 9, 12, 18, 24, 100) for _ in range(8)]
    case.backend.scan(case.step, state, batches, case.data)

    assert any(np.any(x.get() != 0) for x in taken)  # the replay wrote into some of these arrays


def test_blocks_of_the_pool_are_never_given_back(cupy):
    case = small_case()
    case.scan()
    scan = graph_scan()

    assert scan.pool.used_bytes() == 0  # between steps, all blocks are free but still held
    assert sum(block.mem.size for block in scan.blocks) == scan.pool.total_bytes() > 0


def test_the_state_handed_out_is_out_of_the_graphs_reach(cupy):
    case = small_case()
    state, records = case.scan()
    kept = map_leaves(to_numpy, (state, records))
    case.batches["learning_rate"] = case.batches["learning_rate"] + 1.0
    case.scan()

    assert_equal((state, records), kept)
    assert all(type(x) is cupy.ndarray for x in leaves((state, records)))


def test_what_varies_from_step_to_step_is_not_baked_in(cupy):
    """Learning rates, random keys and rows of data in the second chunk differ from the captured ones."""
    case, plain = small_case(), Case(make_backend("cupy"), SMALL, ROW)
    state, _ = case.scan()
    state_plain, _ = plain.scan()
    rng = np.random.default_rng(5)
    case.batches["index"] = plain.batches["index"] = rng.integers(0, 12, (4, 3))
    case.batches["learning_rate"] = plain.batches["learning_rate"] = np.array([0.5, 0.0, 0.25, 0.125])
    case.batches["key"] = plain.batches["key"] = rng.integers(0, 2**31, (4, 2)).astype("int32")

    assert_equal(
        case.backend.scan(case.step, state, case.batches, case.data),
        plain.backend.scan(plain.step, state_plain, plain.batches, plain.data),
    )


def test_each_batch_size_has_a_graph_of_its_own(cupy):
    case, plain = small_case(), Case(make_backend("cupy"), SMALL, ROW)
    for backend_case in (case, plain):
        for size in (3, 2, 3, 2):
            batches = {**backend_case.batches, "index": backend_case.batches["index"][:, :size]}
            backend_case.state, backend_case.records = backend_case.backend.scan(
                backend_case.step, backend_case.state, batches, backend_case.data
            )

    assert_equal((case.state, case.records), (plain.state, plain.records))
    assert len(graph_scan().recordings) == 2


def test_a_batch_of_all_the_data(cupy):
    """Without an index nothing is gathered, and the graph reads the data in place."""
    case, plain = small_case(), Case(make_backend("cupy"), SMALL, ROW)
    for backend_case in (case, plain):
        del backend_case.batches["index"]

    assert_equal(case.scan(), plain.scan())


def test_another_data_set_is_another_graph(cupy):
    """A captured graph contains the addresses of the data."""
    case = small_case()
    case.scan()
    case.data = case.backend.copy(case.data)
    case.scan()

    assert len(graph_scan().recordings) == 2


def test_data_are_not_kept_alive(cupy):
    case = small_case()
    case.scan()
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    del case.data
    gc.collect()

    assert pool.used_bytes() == before - 2 * 512  # one block for x and one for y


def test_callers_on_two_streams(cupy):
    """The steps of one caller do not change the results of the other, although neither stream waits for the other."""
    case, plain = small_case(), Case(make_backend("cupy"), SMALL, ROW)
    rates = [case.batches["learning_rate"] + i for i in range(2)]
    expected = [
        plain.backend.scan(
            plain.step, plain.backend.copy(plain.state), plain.batches | {"learning_rate": rate}, plain.data
        )
        for rate in rates
    ]
    case.scan()
    states, streams = (
        [case.backend.copy(plain.state) for _ in rates],
        [cupy.cuda.Stream(non_blocking=True) for _ in rates],
    )
    cupy.cuda.Device().synchronize()
    results = []
    for rate, state, stream in zip(rates, states, streams, strict=True):
        with stream:
            both = case.backend.scan(case.step, state, case.batches | {"learning_rate": rate}, case.data)
            results.append(map_leaves(lambda x: x * 1.0, both))  # computed later, after `both` was released
            del both
    for stream in (graph_scan().stream, *reversed(streams)):  # each runs as far as it can without the others
        stream.synchronize()

    assert_equal(results, expected)


def test_others_use_the_default_stream_during_a_capture(cupy):
    """The capture does not include that work, because another thread may train another model."""
    backend, made = make_backend("cupy", graphs=True), []

    def step(state, batch):
        if graph_scan().stream.is_capturing():
            thread = threading.Thread(target=lambda: made.append(int((cupy.arange(4) * 2).sum())))
            thread.start()
            thread.join()
        return state + batch["learning_rate"], {"loss": state}

    x = backend.asarray(np.ones((2, 2)))
    state, _ = backend.scan(step, x, {"index": np.zeros((4, 1), int), "learning_rate": np.ones(4)}, {"x": x})

    assert made == [12]
    np.testing.assert_array_equal(state.get(), 5)


FORMS = {  # for each, two forms of (state, row numbers, data) that one step accepts
    "state": lambda x, i: [(x[0, :], i, x), (x[:, :2], i, x)],
    "type of the state": lambda x, i: [(x, i, x), (x.astype("float64"), i, x)],
    "type of the batch": lambda x, i: [(x, i, x), (x, i.astype("int32"), x)],
    "shape of the data": lambda x, i: [(x, i, x), (x, i, x.reshape(9, 1))],
    "strides of the data": lambda x, i: [(x, i, x), (x, i, x.T)],
    "type of the data": lambda x, i: [(x, i, x), (x, i, x.view("int32"))],
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_has_a_graph_of_its_own(name, cupy):
    """This includes one step on data at one address."""
    backend, eager = make_backend("cupy", graphs=True), make_backend("cupy")

    def step(state, batch):
        x = batch["x"].astype(state.dtype)
        return state + x[0, 0], {"loss": x[0, -1]}

    x, index = backend.asarray(np.arange(9.0).reshape(3, 3)), np.array([[0], [1], [2], [1]])
    for state, rows, values in FORMS[name](x, index):
        arguments = step, state, {"index": rows}, {"x": values}
        assert_equal(backend.scan(*arguments), eager.scan(*arguments))


def test_fewer_rows_at_the_same_place_are_another_graph(cupy):
    """If nothing is gathered, only the shape of the data differs."""
    backend, eager = make_backend("cupy", graphs=True), make_backend("cupy")

    def step(state, batch):
        return state + batch["x"].sum(), {"loss": state}

    x, rates = backend.asarray(np.arange(6.0).reshape(3, 2)), {"learning_rate": np.ones(4)}
    for rows in (3, 2):
        arguments = step, x[0, 0], rates, {"x": x[:rows]}
        assert_equal(backend.scan(*arguments), eager.scan(*arguments))


def test_numbers_of_a_wider_type_are_another_graph(cupy):
    """The tables of the first graph could not hold them."""
    backend, eager = make_backend("cupy", graphs=True), make_backend("cupy")

    def step(state, batch):
        return state + batch["number"].astype("float64"), {"loss": state}

    state = backend.asarray(np.zeros(1), dtype=np.dtype("float64"))
    for numbers in (np.ones((4, 1), "int32"), np.full((4, 1), 2**40)):
        arguments = step, state, {"number": numbers}, {}
        assert_equal(backend.scan(*arguments), eager.scan(*arguments))


def test_synchronize_waits_for_the_device(cupy):
    backend = make_backend("cupy")
    x = backend.asarray(np.ones((100, 100)))
    x @ x
    event = cupy.cuda.get_current_stream().record()
    backend.synchronize()

    assert event.done


def test_two_threads_take_turns(cupy):
    """They must, because a captured step has only one set of addresses."""
    backend, inside = make_backend("cupy", graphs=True), []

    def step(state, batch):
        inside.append(None)
        time.sleep(0.05)
        alone.append(len(inside) == 1)
        inside.pop()
        return state + batch["x"][0], {"loss": state}

    x, alone, results = backend.asarray(np.ones((2, 2))), [], []
    batches = {"index": np.zeros((2, 1), int)}
    threads = [
        threading.Thread(target=lambda: results.append(to_numpy(backend.scan(step, x, batches, {"x": x})[0])))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(alone)
    np.testing.assert_array_equal(results, 3)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_during_a_capture(enabled, cupy):
    """A finalizer may make a call that CUDA forbids during a capture. Afterward the collector has its old setting."""
    backend, seen = make_backend("cupy", graphs=True), []

    def step(state, batch):
        seen.append((graph_scan().stream.is_capturing(), gc.isenabled()))
        return state, {"loss": state}

    x = backend.asarray(np.ones((2, 2)))
    was, _ = gc.isenabled(), gc.enable() if enabled else gc.disable()
    try:
        backend.scan(step, x, {"index": np.zeros((4, 1), int)}, {"x": x})
        seen.append(gc.isenabled())
    finally:
        (gc.enable if was else gc.disable)()

    assert seen == [(False, enabled)] * 2 + [(True, False), enabled]


def test_a_graph_is_not_dropped_while_it_may_run(cupy, monkeypatch):
    cases = [small_case(optimizer=SGD(0.1, momentum=m)) for m in (0.1, 0.2)]
    monkeypatch.setattr(sys.modules["xpnet.backend.cuda_graph"], "RECORDINGS", 1)
    cases[0].scan()
    asked = []

    class Recordings(OrderedDict):
        def popitem(self, last=True):
            asked.append("drop")
            return super().popitem(last)

    synchronize = cupy.cuda.Stream.synchronize
    monkeypatch.setattr(cupy.cuda.Stream, "synchronize", lambda stream: (asked.append(stream.ptr), synchronize(stream)))
    graph_scan().recordings = Recordings(graph_scan().recordings)
    cases[1].scan()

    assert asked == [graph_scan().stream.ptr, "drop"]


def test_the_number_of_graphs_is_bounded(cupy, monkeypatch):
    cases = [small_case(optimizer=SGD(0.1, momentum=m)) for m in (0.1, 0.2, 0.3)]
    monkeypatch.setattr(sys.modules["xpnet.backend.cuda_graph"], "RECORDINGS", 2)
    for case in (cases[0], cases[1], cases[0], cases[2]):
        case.scan()

    steps = [recording.step for recording in graph_scan().recordings.values()]
    assert steps == [cases[0].step, cases[2].step]  # the second was used least recently


def test_a_chunk_longer_than_the_tables(cupy, monkeypatch):
    case = small_case()
    monkeypatch.setattr(sys.modules["xpnet.backend.cuda_graph"], "TABLE_ROWS", 3)
    case.batches = repeated(case, 10)
    plain = Case(make_backend("cupy"), SMALL, ROW)
    plain.batches = case.batches

    assert_equal(case.scan(), plain.scan())
    assert only_recording().rows == 3


def test_state_that_changes_places(cupy):
    """A step may return its arrays in another order. No array is overwritten before it is copied."""
    backend = make_backend("cupy", graphs=True)

    def step(state, batch):
        return {"a": state["b"], "b": state["a"], "c": state["c"] + batch["x"][0]}, {"a": state["a"]}

    state = {name: backend.asarray(np.full(2, float(i))) for i, name in enumerate("abc")}
    batches = {"index": np.zeros((5, 1), int), "learning_rate": np.ones(5)}
    state, records = backend.scan(step, state, batches, {"x": backend.asarray(np.ones((1, 2)))})

    assert [float(state[name].get()[0]) for name in "abc"] == [1, 0, 7]
    np.testing.assert_array_equal(records["a"].get()[:, 0], [0, 1, 0, 1, 0])


def test_state_that_is_a_view_of_itself(cupy):
    """The new state has the address and shape of the old one, but is a different array."""
    backend = make_backend("cupy", graphs=True)
    x = backend.asarray(np.arange(4.0).reshape(2, 2))
    batches = {"index": np.zeros((5, 1), int)}
    state, _ = backend.scan(lambda state, batch: (state.mT, {"loss": state[0, 1]}), x, batches, {"x": x})

    np.testing.assert_array_equal(state.get(), [[0, 2], [1, 3]])


def test_a_step_that_changes_the_form_of_its_state(cupy):
    backend = make_backend("cupy", graphs=True)
    x = backend.asarray(np.ones((2, 2)))
    batches = {"index": np.zeros((1, 1), int)}

    with pytest.raises(
        TypeError,
        match=r"with the same shapes and dtypes as its argument. Received: float32 \(2,\) for float32 \(2, 2\)",
    ):
        backend.scan(lambda state, batch: (state[0, :], {"loss": state}), x, batches, {"x": x})


# ---------------------------------------------------------------------- streamed batches, uploaded on a side stream


@WAITING_IS_ANNOUNCED
def test_an_upload_uses_pinned_memory_and_two_streams_that_wait_for_each_other(log, cupy):
    backend, pinned = make_backend("cupy"), []
    side = sys.modules["xpnet.backend.cupy"].upload_stream(0)
    host = {"x": np.arange(12.0).reshape(3, 4)[:, ::2], "y": np.arange(3, dtype="uint8")[:, None]}
    pool = cupy.get_default_pinned_memory_pool()
    cupy.cuda.set_pinned_memory_allocator(lambda size: (pinned.append(size), pool.malloc(size))[1])
    try:
        with no_waiting():
            received = backend.send(host)()
    finally:
        cupy.cuda.set_pinned_memory_allocator(pool.malloc)

    assert log == [("wait_event", 0), ("wait_event", side.ptr)]
    assert side.is_non_blocking
    assert pinned == [values.nbytes for values in host.values()]
    for name, values in host.items():
        assert received[name].dtype == values.dtype
        np.testing.assert_array_equal(received[name].get(), values)


@GRAPHS
def test_streamed_runs_are_the_same_bit_for_bit_if_batches_are_uploaded_in_advance(graphs, cupy, monkeypatch):
    """With bytes, weights, a smaller last batch, a chunk of several batches, evaluation and prediction."""
    rng = np.random.default_rng(0)
    x, y, weight = rng.integers(0, 256, (50, 6)).astype("uint8"), rng.integers(0, 3, 50), rng.random(50)
    batches = Iterable([tuple(v[i : i + 8] for v in (x, y, weight)) for i in range(0, 50, 8)])
    kind, results = type(make_backend("cupy")), []

    for send in (Backend.send, kind.send):
        monkeypatch.setattr(kind, "send", send)
        layers = [Rescaling(1 / 255), Dense(8), ReLU(), Dropout(0.2), Dense(3)]
        backend = make_backend("cupy", graphs=graphs)
        model = Model(layers, "softmax_cross_entropy", Adam(0.01), metrics=["accuracy"], backend=backend)
        model.fit(batches, epochs=4, verbose=0, validation_data=batches)
        results.append((model.state, model.history.history, *model.evaluate(batches), model.predict(batches)))

    assert_equal(results[1], results[0])


def test_a_recording_looks_up_uploaded_batches_and_others(cupy, monkeypatch):
    """A chunk longer than the table, whose samples are on the host or on the device. Each is a recording."""
    case = small_case()
    monkeypatch.setattr(sys.modules["xpnet.backend.cuda_graph"], "TABLE_ROWS", 3)
    batches = repeated(case, 10)
    index = batches.pop("index")
    host = {name: to_numpy(values)[index] for name, values in case.data.items()}
    case.data, results = {}, []
    for columns in (host, case.backend.send(host)()):
        case.batches = batches | columns
        results.append(map_leaves(to_numpy, case.scan()))

    assert_equal(results[1], results[0])
    assert [len(recording.row.names) for recording in graph_scan().recordings.values()] == [4, 2]
    assert all(recording.rows == 3 for recording in graph_scan().recordings.values())


# ---------------------------------------------------------------------- errors


def reads_a_value(state, batch):
    if float(batch["learning_rate"]) > 10:
        return -state, {"loss": state}
    return state + batch["learning_rate"], {"loss": state}


@pytest.mark.parametrize("closes", [True, False], ids=["", "closing fails too"])
def test_an_error_inside_a_capture_closes_it(cupy, monkeypatch, closes):
    """The first error is raised, with a note. The stream and the garbage collector are as before, and the state is intact."""
    backend = make_backend("cupy", graphs=True)
    x = backend.asarray(np.ones((2, 2)))
    batches = {"index": np.zeros((4, 1), int), "learning_rate": np.ones(4)}
    if not closes:
        end = cupy.cuda.Stream.end_capture

        def fails(stream):
            end(stream)
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")

        monkeypatch.setattr(cupy.cuda.Stream, "end_capture", fails)
    with pytest.raises(RuntimeError, match="capturing") as caught:
        backend.scan(reads_a_value, x, batches, {"x": x})

    assert "captured in a CUDA graph. Without graphs=True" in caught.value.__notes__[0]
    assert not graph_scan().stream.is_capturing()
    assert gc.isenabled()
    np.testing.assert_array_equal(x.get(), 1)
    assert only_recording().graph is None


def test_the_caller_waits_for_the_steps_before_an_error(log):
    """These steps still read the state and the data, which the caller may free."""
    backend = make_backend("cupy", graphs=True)
    x = backend.asarray(np.ones((2, 2)))
    batches = {"index": np.zeros((4, 1), int), "learning_rate": np.ones(4)}
    with pytest.raises(RuntimeError, match="capturing"):
        backend.scan(reads_a_value, x, batches, {"x": x})

    assert log[-1] == ("wait_event", 0)


def test_what_varies_lies_as_its_type_wants(cupy):
    """Numbers in the tables are aligned to their type, because a GPU refuses to read a misaligned number."""
    backend, places = make_backend("cupy", graphs=True), []

    def step(state, batch):
        places.extend(batch[name].data.ptr % batch[name].itemsize for name in ("narrow", "wide"))
        return state + batch["wide"][0], {"loss": batch["narrow"]}

    x = backend.asarray(np.zeros(2))
    batches = {"narrow": np.ones((4, 1), "int8"), "wide": np.arange(4.0)[:, None]}
    state, records = backend.scan(step, x, batches, {})

    columns = only_recording().columns.values()
    assert all(n % x.itemsize == 0 for x in columns for n in (x.data.ptr, *x.strides))
    assert places == [0] * 6
    np.testing.assert_array_equal(state.get(), 6)
    np.testing.assert_array_equal(records["loss"].get(), 1)


def test_an_invalid_capture_is_an_error(cupy, monkeypatch):
    case = small_case()

    end = cupy.cuda.Stream.end_capture

    def fails(stream):
        end(stream)
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(cupy.cuda.Stream, "end_capture", fails)
    with pytest.raises(RuntimeError, match="CaptureInvalidated"):
        case.scan()
    monkeypatch.undo()

    assert only_recording().graph is None


def test_arrays_inside_a_step_multiply_by_our_cublas(spy):
    """For every result of a namespace function, ``@`` calls our cuBLAS, which can be captured. Integers stay with CuPy."""
    backend = make_backend("cupy", graphs=True)
    kinds = []

    def step(state, batch):
        xp = namespace(state)
        x = batch["x"]
        made = [
            x, x.mT, x[0:1, :], x + 1, xp.take(x, batch["i"][0, :], axis=0), xp.sum(x, axis=0, keepdims=True), xp.zeros((2, 2)),
            xp.concat([x] * 10), xp.stack([x] * 9, axis=-1), xp.concat([x, x], axis=None), xp.astype(x, xp.float64),
            xp.reshape(x, (-1,)), xp.where(x > 0, x, 0.0), xp.argmax(x, axis=-1), *xp.unstack(x), xp.matmul(x, x), x.mT @ x,
        ]  # fmt: skip
        kinds.extend(type(value) for value in made)
        return state, {"loss": xp.sum(xp.ones((2, 2), dtype=x.dtype) @ xp.zeros((2, 3), dtype=x.dtype))}

    x = backend.asarray(np.ones((2, 2)))
    data = {"x": x, "i": backend.asarray(np.zeros((2, 2), int))}
    backend.scan(step, x, {"index": np.array([[0, 1]] * 4)}, data)

    assert set(kinds) == {graph_scan().array}
    assert len(spy.products) == 3 * 3  # three products, in two runs and a capture


def test_more_than_eight_arrays_are_joined_as_by_numpy(cupy):
    backend = make_backend("cupy", graphs=True)
    x = [np.random.default_rng(i).normal(size=(2, 3)).astype("float32") for i in range(11)]
    graphable = [backend.asarray(part).view(type=graph_scan().array) for part in x]
    xp = namespace(graphable[0])
    for axis in (0, 1, -1, None):
        np.testing.assert_array_equal(xp.concat(graphable, axis=axis).get(), np.concatenate(x, axis=axis))
    for axis in (0, 1, 2, -1, -2):
        np.testing.assert_array_equal(xp.stack(graphable, axis=axis).get(), np.stack(x, axis=axis))


# ---------------------------------------------------------------------- one kernel for all parameters


@GRAPHS
@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if not (o.clipnorm or o.global_clipnorm)], ids=repr)
def test_the_optimizers_kernel_gives_what_many_kernels_give_to_the_last_bit(optimizer, graphs, cupy, monkeypatch):
    """Gradients are fixed and norms are left out, because matrix products and sums may round in different orders."""
    rng = np.random.default_rng(0)
    shapes = {"weight": (6, 4), "bias": (1, 4)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    grads = {name: rng.normal(size=(12, *shape)) for name, shape in shapes.items()}
    batches = {"index": rng.integers(0, 12, (4, 1)), "learning_rate": np.linspace(0.1, 0.02, 4)}

    def step(state, batch):
        grads = {name: batch[name][0, ...] for name in shapes}
        return optimizer.update(state[0], grads, state[1], batch["learning_rate"]), {"loss": grads["bias"]}

    def train(backend):
        start = map_leaves(backend.asarray, params)
        return backend.scan(step, (start, optimizer.init(start)), batches, map_leaves(backend.asarray, grads))[0]

    backend = make_backend("cupy", graphs=graphs)
    results = train(backend)
    assert kernels_of(graph_scan().array if graphs else cupy.ndarray).kernels
    sys.modules["xpnet.backend.cupy"].graph_scan.cache_clear()
    monkeypatch.setattr(CudaKernels, "map", lambda self, rule, groups: [rule(*group) for group in groups])

    assert_equal(results, train(backend))


def launches():
    """Return the number of kernels so far, which is always 0 on a GPU, because a GPU does not count them."""
    importlib.import_module("cupy").cuda.Device().synchronize()  # with FAKECUDA_LAZY=1 they are counted when they run
    try:
        return importlib.import_module("fakecuda").counts()["launches"]
    except ModuleNotFoundError:
        return 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 3, 83, 84, 170])  # 83 leaves fill the 4 KB of arguments
def test_a_rule_over_many_leaves_is_few_kernels(count, dtype, cupy):
    backend = make_backend("cupy", dtype=dtype)
    rng = np.random.default_rng(0)
    shapes = [tuple(rng.integers(1, 30, rng.integers(1, 3))) for _ in range(count)]
    trees = [tuple(rng.normal(size=shape).astype(dtype) for shape in shapes) for _ in range(3)]
    optimizer = SGD(0.1, momentum=0.9)

    def update(move):
        p, g, v = (tuple(map(move, tree)) for tree in trees)
        return optimizer.update(p, g, {"velocity": v}, 0.1)

    expected = update(np.array)
    device = [tuple(map(backend.asarray, tree)) for tree in trees]
    before = launches()
    params, state = optimizer.update(*device[:2], {"velocity": device[2]}, 0.1)

    assert launches() - before == (-(-count // 83) if launches() else 0)
    assert_equal((params, state), expected)
    kept = zip((*params, *state["velocity"]), (*device[0], *device[2]), strict=True)
    assert all(new.data.ptr == old.data.ptr for new, old in kept)  # in place, so that a graph has nothing to copy back


def rule_of_everything(xp, lr):
    """Return a rule with every operation that a kernel supports. It has two results, one of them in new memory."""

    def rule(p, g):
        before = p
        p -= lr * g
        g *= 2
        u = -g / (1.0 + p) - 3 / (g + 4.0) + (1 - p) * before
        u += xp.sqrt(xp.abs(u)) + xp.exp(p * 0.1) + xp.log(xp.abs(g) + 1.0)
        return p, xp.maximum(xp.minimum(u, 0.5), p - 1)

    return rule


def test_a_symbol_behaves_as_the_array_it_stands_for(cupy):
    """``before`` is p, so a change in place is visible through both names."""
    backend = make_backend("cupy")
    p, g = (np.random.default_rng(i).normal(size=(4, 5)).astype("float32") for i in range(2))
    p[0, 0], g[1, 1] = np.nan, np.nan
    expected = rule_of_everything(np, np.float32(0.5))(p.copy(), g.copy())
    with np.errstate(all="ignore"):
        results = map_elements_to_trees(
            lambda p, g: rule_of_everything(namespace(p), backend.asarray(np.array(0.5)))(p, g),
            backend.asarray(p),
            backend.asarray(g),
        )

    assert len(kernels_of(cupy.ndarray).kernels) >= 1
    for value, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(value.get(), wanted, rtol=1e-6)


UNTRACEABLE = {
    "a sum": lambda p, g: p - namespace(p).sum(g * g),
    "a function that it does not know": lambda p, g: namespace(p).atan(p) * g,
    "an array": lambda p, g: p + (g * 0.0 + 1.0)[:1, :],
    "a tree of other shapes": lambda p, g: p * 2.0,
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_other_rules_are_applied_leaf_by_leaf(name, cupy):
    backend, rule = make_backend("cupy"), UNTRACEABLE[name]
    p, g = (np.random.default_rng(i).normal(size=(2, 3)).astype("float32") for i in range(2))
    if name == "a tree of other shapes":
        g = g[0]

    result = map_elements(rule, {"w": backend.asarray(p)}, {"w": backend.asarray(g)})

    np.testing.assert_allclose(result["w"].get(), rule(p.copy(), g.copy()), rtol=1e-6)


def test_leaves_that_lie_across_are_made_contiguous(cupy):
    backend = make_backend("cupy")
    p = np.arange(6.0, dtype="float32").reshape(2, 3)

    def rule(p, g):
        p -= g
        return p

    result = map_elements(rule, backend.asarray(p), backend.asarray(p.T.copy()).mT)

    np.testing.assert_array_equal(result.get(), 0)


def test_a_tree_without_leaves(cupy):
    assert map_elements(lambda p: p, {"a": ()}) == {"a": ()}


def test_a_rule_of_two_results_applied_leaf_by_leaf(cupy):
    backend = make_backend("cupy")
    x = {"a": backend.asarray(np.ones(2))}

    first, second = map_elements_to_trees(lambda p: (p + 1.0, namespace(p).atan(p)), x)

    np.testing.assert_array_equal(first["a"].get(), 2)
    np.testing.assert_allclose(second["a"].get(), np.arctan(1), rtol=1e-6)


# ---------------------------------------------------------------------- products with our cuBLAS


def device_array(host):
    """Return the host array on the device, with the same strides."""
    cp, base = importlib.import_module("cupy"), host
    while base.base is not None:
        base = base.base
    memory = cp.asarray(base)
    offset = host.ctypes.data - base.ctypes.data
    return (
        cp.ndarray(host.shape, host.dtype, memory.data + offset, host.strides)
        if host.size
        else cp.empty(host.shape, host.dtype)
    )


@pytest.fixture
def gemm(spy):
    return cublas.Gemm(importlib.import_module("cupy"), importlib.import_module("cupy").cuda.Stream.null, spy)


@st.composite
def operands(draw):
    """Draw two arrays that can be multiplied, in any layout that NumPy's views can have."""
    m, k, n = (draw(st.integers(0, 4)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 3), max_size=3))
    dtypes = draw(st.sampled_from([("float32", "float32"), ("float64", "float64"), ("float32", "float64")]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    arrays = []
    for (rows, columns), dtype in zip(((m, k), (k, n)), dtypes, strict=True):
        leading = [1 if draw(st.booleans()) else size for size in batch[draw(st.integers(0, len(batch))) :]]
        shape = [*leading, rows, columns]
        order = draw(st.permutations(range(len(shape))))
        extra = [draw(st.integers(0, 2)) for _ in shape]
        steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
        stored = [shape[axis] * abs(steps[axis]) + extra[axis] for axis in order]
        x = rng.normal(size=stored).astype(dtype).transpose(np.argsort(order))
        for axis, (size, step) in enumerate(zip(shape, steps, strict=True)):
            index = [slice(None)] * x.ndim
            index[axis] = (
                slice(0, size * step, step) if step > 0 else slice(size - 1, None, -1) if size else slice(0, 0)
            )
            x = x[tuple(index)]
        if draw(st.booleans()) and len(shape) == 2 and draw(st.booleans()):
            x = x[0] if not arrays and rows else x[:, 0] if arrays and columns else x
        arrays.append(x)
    return arrays


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operands())
def test_products_are_numpys_in_every_layout(gemm, pair):
    a, b = pair
    result = gemm(device_array(a), device_array(b))

    expected = a @ b
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.get(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (x, x.mT),
        lambda x: (x.mT, x),
        lambda x: (x[1:, :2], x.mT[:2, :]),
        lambda x: (x[None, :, :], x.mT[None, :, :]),
    ],
)
def test_views_are_multiplied_where_they_lie(make, gemm, spy):
    a, b = make(device_array(np.ones((3, 4), "float32")))
    gemm(a, b)

    ((_, _, _, _, _, _, _, _, left, _, _, right, *_),) = spy.products
    assert {left, right} == {a.data.ptr, b.data.ptr}


def test_a_batch_of_transposed_views_is_one_call(gemm, spy):
    """This is (batch, time, d) times its transpose, as in attention, and times one matrix for the whole batch."""
    x = device_array(np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32"))
    W = device_array(np.ones((4, 7), "float32"))
    gemm(x, x.mT)
    gemm(x, W)

    strides = [(call[11], call[15], call[21]) for call in spy.products]  # strides of both operands, count
    assert strides == [(20, 20, 6), (0, 20, 6)]


def test_sizes_must_fit(gemm):
    x = device_array(np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"equal inner sizes. Received: shapes \(2, 3\) and \(2, 3\)"):
        gemm(x, x)


def test_the_handle_gets_its_stream_before_its_workspace_and_is_destroyed(spy):
    cp = importlib.import_module("cupy")
    stream = cp.cuda.Stream(non_blocking=True)
    gemm = cublas.Gemm(cp, stream, spy)
    assert gemm.workspace.nbytes == 32 << 20
    del gemm
    gc.collect()

    names = ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasDestroy_v2"]
    assert [name for name, *_ in spy.calls] == names
    assert spy.calls[1][2] == stream.ptr


def test_tf32_follows_cupys_own_switch(cupy, monkeypatch):
    computed = []
    for value, tf32 in (("0", None), ("1", None), ("1", False), ("0", True)):
        monkeypatch.setenv("CUPY_TF32", value)
        computed.append(cublas.Gemm(cupy, cupy.cuda.Stream.null, tf32=tf32).kinds["float32"][1])

    assert computed == [68, 77, 68, 77]


@pytest.mark.parametrize(("status", "name"), [(7, "invalid value"), (13, "execution failed"), (99, "unknown error")])
def test_a_status_is_an_error(status, name, gemm, spy):
    spy.cublasGemmEx = lambda *arguments: status
    x = device_array(np.ones((2, 2), "float32"))
    with pytest.raises(RuntimeError, match=rf"cublasGemmEx failed: {name} \(status {status}\)"):
        gemm(x, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_inside_a_capture(cupy, dtype):
    """Compares products of every layout, captured and launched, with CuPy's own."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        gemm = cublas.Gemm(cupy, stream)
        a = cupy.random.default_rng(0).standard_normal((3, 64, 32)).astype(dtype)
        b = cupy.random.default_rng(1).standard_normal((3, 32, 48)).astype(dtype)
        pairs = [(a[0], b[0]), (a[0], a[1].T), (b[0].T, b[1]), (a, b), (a, a.mT), (b.mT, b), (a, b[0]), (a[:, ::2], b)]
        for x, y in pairs:
            gemm(x, y)
        stream.begin_capture()
        results = [gemm(x, y) for x, y in pairs]
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
        for result, (x, y) in zip(results, pairs, strict=True):
            cupy.testing.assert_allclose(result, x @ y, rtol=1e-4, atol=1e-4)


def test_our_type_survives_cupys_views_and_takes_every_product(cupy, gemm, spy):
    compat = importlib.import_module("array_api_compat.cupy")
    kind = importlib.import_module("xpnet.backend.cuda_graph").make_array_type(cupy, compat, gemm)
    host = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    plain = cupy.asarray(host)
    x = plain.view(type=kind)
    xp = namespace(x)
    views = [
        x.mT, x[0], x[:, 1:, :2], x[..., None], xp.reshape(x, (8, 3)), xp.permute_dims(x, (1, 0, 2)), xp.flip(x, axis=1),
        xp.broadcast_to(x, (5, 2, 4, 3)), xp.moveaxis(x, -1, 0), *xp.unstack(x), xp.expand_dims(x, axis=0), xp.squeeze(x[:1]),
    ]  # fmt: skip
    products = [x @ x.mT, x.mT @ x, plain @ x.mT, x @ plain.mT, x[0] @ x[1].mT, xp.matmul(plain, x.mT), x @ x[0, 0]]
    expected = [
        host @ host.mT, host.mT @ host, host @ host.mT, host @ host.mT, host[0] @ host[1].T, host @ host.mT, host @ host[0, 0],
    ]  # fmt: skip

    assert {type(view) for view in (*views, *products)} == {kind}
    assert len(spy.products) == len(products)
    for product, wanted in zip(products, expected, strict=True):
        np.testing.assert_allclose(product.get(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "name"),
    [(gpu_probes.EMPTY, "empty"), (gpu_probes.COOPERATIVE, "barriers")],
    ids=["empty", "cooperative"],
)
def test_the_kernels_of_gpu_check_compile(cupy, source, name):
    cupy.RawKernel(source, name, enable_cooperative_groups="cooperative" in source).compile()
