"""The backend switch, moving arrays, and scan."""

import copy
import logging
import pickle
import sys
import threading

import numpy as np
import pytest

import xpnet
from tests.scripts import run
from xpnet.backend import make_backend, namespace, size, switch, to_numpy
from xpnet.backend.indexing import add_row
from xpnet.layers import LSTM


@pytest.fixture(autouse=True)
def _restore_default(monkeypatch):
    monkeypatch.setattr(switch, "_default", None)
    monkeypatch.setattr(switch, "_fallback_said", False)
    monkeypatch.delenv("XPNET_BACKEND", raising=False)


def test_floating_point_becomes_the_default_type_and_integers_stay(xp):
    assert xp.asarray([1.5, 2.5]).dtype == xp.dtype
    assert xp.asarray(np.array([1, 2], np.uint8)).dtype == xp.namespace.uint8
    np.testing.assert_array_equal(to_numpy(xp.asarray(np.array([[1.5, 2]]))), np.array([[1.5, 2]], "float32"))


def test_an_array_of_the_library_is_used_where_it_is(xp):
    x = xp.asarray(np.ones(3))

    if xp.__class__.__name__ != "ReadOnlyNumpy":  # which always copies
        assert xp.asarray(x) is x


def test_an_array_of_another_library_is_moved(xp):
    torch = pytest.importorskip("torch")
    x = xp.asarray(torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True))

    assert xp.owns(x)
    assert x.dtype == xp.dtype
    np.testing.assert_array_equal(to_numpy(x), [[1, 2]])


@pytest.mark.parametrize(
    "values", [["a", "b"], np.array([1 + 2j]), np.array([None, 1])], ids=["str", "complex", "object"]
)
def test_only_real_numbers_are_arrays(xp, values):
    with pytest.raises(ValueError, match="must hold real numbers"):
        xp.asarray(values)


def test_complex_arrays_of_the_library_are_refused_too(xp):
    x = xp.namespace.ones((2,), dtype=xp.namespace.complex64, device=xp.device)

    with pytest.raises(ValueError, match=r"must hold real numbers.*complex64"):
        xp.asarray(x)


def test_copy_has_its_own_memory(xp):
    x = {"a": (xp.asarray(np.ones(3)),)}
    y = xp.copy(x)
    doubled = y["a"][0]
    doubled *= 2.0

    np.testing.assert_array_equal(to_numpy(x["a"][0]), 1)


def test_namespace_and_size(xp):
    x = xp.asarray(np.ones((2, 3)))

    assert namespace(x) is xp.namespace
    assert size(x) == 6


def step(state, batch):
    total = state + namespace(state).sum(batch["x"]) * batch["learning_rate"]
    return total, {"total": total, "pair": (total * 2.0, batch["key"])}


def test_scan_gathers_rows_and_stacks_records(xp):
    data = {"x": xp.asarray(np.arange(10.0)[:, None])}
    index = np.array([[0, 1], [4, 5], [9, 9]])
    batches = {
        "index": index,
        "learning_rate": np.array([1.0, 0.5, 1.0]),
        "key": np.arange(6, dtype=np.int32).reshape(3, 2),
    }

    state, records = xp.scan(step, xp.asarray(np.array(1.0)), batches, data)

    np.testing.assert_allclose(to_numpy(records["total"]), [2, 6.5, 24.5])
    np.testing.assert_allclose(to_numpy(records["pair"][0]), [4, 13, 49])
    np.testing.assert_array_equal(to_numpy(records["pair"][1]), batches["key"])
    assert float(to_numpy(state)) == 24.5
    xp.synchronize()


def test_jax_compiles_scan_once_for_each_shape():
    jax = make_jax()
    traces = []

    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    data = {"x": jax.asarray(np.arange(10.0)[:, None])}
    for _ in range(3):
        for batch in (4, 2):
            batches = {
                "index": np.zeros((3, batch), int),
                "learning_rate": np.ones(3),
                "key": np.zeros((3, 2), np.int32),
            }
            jax.scan(counted, jax.asarray(np.array(1.0)), batches, data)

    assert len(traces) == 2


def test_jax_creates_zeros_without_compiling(caplog):
    """An optimizer needs zeros of every shape. The shape here is in no other test."""
    backend, jax = make_jax(), pytest.importorskip("jax")
    with jax.log_compiles():
        x = backend.asarray(np.ones((3, 1237)))
        zeros = namespace(x).zeros_like(x)

    assert "ompil" not in caplog.text
    assert (zeros.dtype, zeros.device) == (x.dtype, x.device)
    np.testing.assert_array_equal(to_numpy(zeros), np.zeros((3, 1237)))


def test_jax_creates_zeros_in_compiled_code_and_of_other_types():
    backend, jax = make_jax(), pytest.importorskip("jax")
    x = backend.asarray(np.ones((2, 3)))
    zeros_like = namespace(x).zeros_like

    assert zeros_like(x, dtype=x.dtype, device=x.device).shape == (2, 3)
    assert zeros_like(x, dtype="int32").dtype == "int32"
    assert jax.jit(lambda y: zeros_like(x + y))(x).shape == (2, 3)
    lstm = LSTM(4)
    params, _ = lstm.init(np.random.default_rng(0), (2, 3))
    y, dh = backend.asarray(np.ones((1, 2, 3))), backend.asarray(np.ones((1, 4)))
    grads = jax.jit(lambda params: lstm.forward(params, y)[1](dh)[1])(params)
    assert grads["weight"].shape == (3, 16)


@pytest.mark.parametrize("asked", [None, "tensorfloat32"])
def test_jax_multiplies_in_float32_unless_told_otherwise(asked):
    """Checks the text that the compiler receives, because all precisions are the same on a CPU."""
    backend, jax = make_jax(), pytest.importorskip("jax")
    x, step = np.eye(3, dtype="float32"), lambda x, batch: (x @ x, x)
    batches = {"i": np.arange(2)}
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", asked)
    try:
        programs = [
            backend.compile_call(lambda: lambda x: x @ x).lower(x).as_text(),
            backend.compile_scan(lambda: step).lower(x, batches, {}).as_text(),
            str(jax.make_jaxpr(lambda x: backend.scan_eagerly(step, x, batches, {}))(x)),
        ]
    finally:
        jax.config.update("jax_default_matmul_precision", before)

    assert [("HIGHEST" in program) == (asked is None) for program in programs] == [True] * 3


def make_jax():
    pytest.importorskip("jax")
    return make_backend("jax")


def test_numpy_is_the_default():
    assert xpnet.get_backend().name == "numpy"
    assert xpnet.get_backend().float_name == "float32"


def test_set_backend_reaches_new_threads_and_use_backend_does_not():
    xpnet.set_backend("numpy", dtype="float64")
    seen = []
    with xpnet.use_backend("array_api_strict") as inside:
        thread = threading.Thread(target=lambda: seen.append(xpnet.get_backend()))
        thread.start()
        thread.join()

        assert xpnet.get_backend() is inside
    assert seen == [xpnet.get_backend()]
    assert xpnet.get_backend().float_name == "float64"


def test_auto_passes_the_dtype_on():
    """The backend that "auto" chooses receives it."""
    assert make_backend("auto", dtype="float64").float_name == "float64"


def test_environment_variable_picks_the_backend(monkeypatch):
    monkeypatch.setenv("XPNET_BACKEND", "array_api_strict")

    assert xpnet.get_backend().name == "array_api_strict"


def test_backend_objects_are_accepted(xp):
    assert make_backend(xp) is xp
    with pytest.raises(ValueError, match="already has its device and settings"):
        make_backend(xp, dtype="float64")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tensorflow"}, '"array_api_strict", "auto". Received: .tensorflow'),
        ({"name": "numpy", "device": "cuda"}, "Received: device='cuda'"),
        ({"name": "numpy", "dtype": "float16"}, "Received: dtype='float16'"),
    ],
)
def test_unknown_names_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        xpnet.set_backend(**arguments)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_unknown_device_is_not_available(name):
    pytest.importorskip(name)
    with pytest.raises(xpnet.BackendNotAvailableError, match=r"The device must be one that .*no_such_device"):
        xpnet.set_backend(name, device="no_such_device")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xpnet.backend.cupy", None)
    monkeypatch.setattr(switch.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(
        xpnet.BackendNotAvailableError, match=r"cupy is not installed\. Run: .* -m pip install -e .*\[cuda12\]"
    ):
        xpnet.set_backend("cupy")


def test_a_package_that_does_not_load_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "xpnet.backend.cupy", None)
    monkeypatch.setattr(switch.importlib.util, "find_spec", lambda name: object())

    with pytest.raises(
        xpnet.BackendNotAvailableError, match=r"installed, but cannot be imported. Reinstall it. Received: "
    ):
        xpnet.set_backend("cupy")


def test_auto_falls_back_to_numpy_and_says_so_once(monkeypatch, caplog):
    real = switch.make_backend

    def no_cupy(name, **settings):
        if name == "cupy":
            raise xpnet.BackendNotAvailableError("no CUDA device responds")
        return real(name, **settings)

    monkeypatch.setattr(switch, "make_backend", no_cupy)
    with caplog.at_level(logging.WARNING, "xpnet"):
        for _ in range(2):
            assert real("auto").name == "numpy"

    assert [record.message for record in caplog.records] == [
        "Backend auto: training on the CPU with NumPy. no CUDA device responds"
    ]


def test_available_backends_gives_a_reason_for_each():
    reasons = xpnet.available_backends()

    assert list(reasons) == ["numpy", "cupy", "torch", "jax", "array_api_strict"]
    assert reasons["numpy"] == "usable (cpu)"
    assert all(reasons.values())


def test_show_versions(capsys):
    xpnet.show_versions()

    out = capsys.readouterr().out
    assert "numpy" in out
    assert "in force         <xpnet backend numpy on cpu, float32>" in out


def test_backend_survives_pickling(xp):
    if xp.__class__.__name__ == "ReadOnlyNumpy":
        return
    for backend in (xp, xp.computing_in("float64")):
        for copied in (pickle.loads(pickle.dumps(backend)), copy.deepcopy(backend)):
            assert copied == backend
            assert hash(copied) == hash(backend)
            assert copied.float_name == backend.float_name
    assert "jax" not in sys.modules or not sys.modules["jax"].config.read("jax_enable_x64")


def test_float64_on_jax_turns_on_x64():
    """In a separate process, because the switch is global in JAX."""
    pytest.importorskip("jax")
    code = "import xpnet; xpnet.set_backend('jax', dtype='float64'); print(xpnet.asarray([1.0]).dtype)"
    done = run("-c", code)

    assert done.stdout.strip() == "float64"


@pytest.mark.parametrize("choose", ["if xpnet.set_backend(backend)", "with xpnet.use_backend(backend)"])
def test_an_unpickled_float64_backend_of_jax_turns_on_x64_when_it_becomes_the_current_one(choose):
    """In a separate process, because the switch is global in JAX."""
    pytest.importorskip("jax")
    code = f"""
import pickle, jax, numpy as np, xpnet
from xpnet.backend import make_backend
backend = pickle.loads(pickle.dumps(make_backend("jax").computing_in("float64")))
print(jax.config.read("jax_enable_x64"))
{choose}:
    print(xpnet.asarray(np.ones(2)).dtype)
"""
    done = run("-c", code)

    assert done.stdout.split() == ["False", "float64"]


@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64"])
def test_torch_tensors_of_wide_unsigned_integers_become_signed(name):
    """This concerns only one library, so no `xp` fixture."""
    torch = pytest.importorskip("torch")
    x = make_backend("torch").asarray(torch.tensor([1, 40_000], dtype=getattr(torch, name)))

    assert x.tolist() == [1, 40_000]
    assert int(x.max()) == 40_000


@pytest.mark.parametrize("n", [3, 5000])
def test_numpy_clips_like_maximum_and_minimum(n):
    """Only NumPy has a faster way for many numbers."""
    xp, rng = make_backend("numpy").namespace, np.random.default_rng(0)
    x = np.concatenate([[np.nan, np.inf, -np.inf], rng.normal(size=n)]).astype(np.float32)
    for ours, numpy in ((xp.maximum, np.maximum), (xp.minimum, np.minimum)):
        for number in (0.0, 0.5, 1e-19):
            result = ours(x, number)

            assert result.dtype == np.float32
            np.testing.assert_array_equal(result, numpy(x, number))
        np.testing.assert_array_equal(ours(x, x[::-1]), numpy(x, x[::-1]))


@pytest.mark.parametrize(
    "shapes", [((9, 5000), (5000, 16)), ((1, 5000), (5000, 16)), ((2, 9, 50), (2, 50, 4)), ((3, 4), (4,))]
)
def test_products_are_those_of_the_operator(shapes, xp):
    rng = np.random.default_rng(0)
    a, b = (xp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in shapes)

    np.testing.assert_array_equal(to_numpy(xp.namespace.matmul(a, b)), to_numpy(a @ b))


@pytest.mark.parametrize("shape", [(5, 3), (50_001, 3), (2_000, 40), (3, 10_000)])
def test_a_row_is_added_to_each_row(shape, xp):
    rng = np.random.default_rng(0)
    x, row = (rng.normal(size=s).astype(np.float32) for s in (shape, (1, shape[1])))

    np.testing.assert_array_equal(to_numpy(add_row(xp.asarray(x.copy()) * 1.0, xp.asarray(row))), x + row)


def test_a_row_is_added_to_a_view():
    """Only NumPy's function looks at the memory."""
    x = np.zeros((3, 50_000), np.float32).T

    np.testing.assert_array_equal(add_row(x, np.ones((1, 3), np.float32)), 1.0)
    np.testing.assert_array_equal(x, 1.0)


@pytest.mark.parametrize("offset", [0, 4])
def test_jax_gets_large_arrays_without_a_copy_of_its_own(offset):
    """Only JAX shares aligned memory. Its own copy takes several times as long as NumPy's."""
    jax = pytest.importorskip("jax")
    backend, memory = make_backend("jax", device="cpu"), np.arange(1 << 19, dtype=np.float32)
    x = memory[offset:]
    moved = backend.asarray(x)

    assert isinstance(moved, jax.Array)
    np.testing.assert_array_equal(to_numpy(moved), x)
    np.testing.assert_array_equal(memory, np.arange(1 << 19))
