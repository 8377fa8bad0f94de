"""A model on a device that is not the current one: every array operation of a model happens on its backend's device.

In CuPy, each thread has a current device. JAX has a default device. The tests need two devices, so they do not use the `xp`
fixture. The two devices are FAKECUDA_DEVICES=2 with the CUDA emulator, two GPUs, or, for JAX, two CPU devices in a separate
process. The run ``devices`` of `tests.cuda_emulator` also runs the tests of models, with XPNET_TEST_BACKENDS=cupy-second.
"""

import copy
import importlib
import importlib.util
import inspect
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.test_graph_safety import Case
from xpnet import Adam, BackendNotAvailableError, Model
from xpnet.backend import make_backend, to_numpy
from xpnet.backend.fusion import fused, map_elements
from xpnet.inspection import layer_statistics
from xpnet.layers import BatchNormalization, Dense, Dropout, Embedding, Flatten
from xpnet.tree import leaves

X, Y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
DENSE = [Dense(6, "relu"), BatchNormalization(), Dropout(0.2), Dense(3)]
CALLS = {
    "fit": lambda model: model.fit(X, Y, validation_split=0.2, class_weight={0: 1.0, 1: 2.0, 2: 1.0}, verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(X, Y),
    "evaluate": lambda model: model.evaluate(X, Y),
    "predict": lambda model: model.predict(X),
    "predict_classes": lambda model: model.predict_classes(X),
    "predict_logits": lambda model: model.predict_logits(X),
    "an array of the device": lambda model: model.predict(model.backend.asarray(X)),
    "build": lambda model: model.build((8,)),
    "layer_statistics": lambda model: layer_statistics(model, X, Y),
}  # fmt: skip


def second_device(graphs=False):
    try:
        return make_backend("cupy", device=1, graphs=graphs)
    except BackendNotAvailableError as error:
        pytest.skip(str(error).partition(".")[0])


def current_device():
    return importlib.import_module("cupy").cuda.runtime.getDevice()


@pytest.fixture(params=[False, True], ids=["eager", "graphs"])
def model(request):
    """Return a trained model on a CuPy device that is not the current one."""
    backend = second_device(request.param)
    assert current_device() == 0
    model = Model(DENSE, "softmax_cross_entropy", Adam(0.01), ["accuracy"], backend=backend)
    model.fit(X, Y, verbose=0)
    return model


def in_another_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results


def devices(model):
    return {x.device.id for x in leaves(model.state) if hasattr(x, "device")}


@pytest.mark.parametrize("name", CALLS)
def test_a_model_on_the_second_device(model, name):
    CALLS[name](model)

    assert in_another_thread(lambda: (CALLS[name](model), current_device())[1]) == [0]
    assert current_device() == 0
    assert devices(model) == {1}


@pytest.mark.parametrize("of", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_copy_is_on_the_same_device_and_changes_no_other(model, of):
    copied = of(model)
    copied = pickle.loads(copied) if isinstance(copied, bytes) else copied

    assert current_device() == 0
    assert copied.backend == model.backend
    assert devices(copied) == {1}
    np.testing.assert_array_equal(to_numpy(copied.predict(X)), to_numpy(model.predict(X)))


def test_a_model_moves_between_devices(model):
    expected = to_numpy(model.predict(X))
    model.to("cupy", device=0)

    assert devices(model) == {0}
    np.testing.assert_allclose(to_numpy(model.predict(X)), expected, rtol=1e-5, atol=1e-6)  # sums in float32
    model.to("cupy", device="cuda:1").fit(X, Y, verbose=0)
    assert devices(model) == {1}


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
def test_a_backend_computes_on_its_device(graphs):
    """This holds for any caller, not only for models. The two devices do not share captured steps."""
    for backend in (second_device(graphs), make_backend("cupy", device=0, graphs=graphs)):
        with backend.scope():
            case = Case(backend, DENSE, (6,))
        arguments = case.step, case.state, case.batches, case.data
        results = [
            backend.asarray(X),
            backend.copy(case.state),
            backend.call(lambda x: x + 1.0, case.data["x"]),
            backend.scan_eagerly(*arguments),
            backend.scan(*arguments),
        ]

        assert {x.device.id for x in leaves(results)} == {backend.device.id}
        assert all(np.all(np.isfinite(x)) for x in leaves(backend.to_host(results)))
        assert current_device() == 0


RULES = {
    "arguments": lambda rule, x, here: fused(rule, x),
    "captured": lambda rule, x, here: fused(lambda y: y * rule(x), here),
    "of an optimizer": lambda rule, x, here: map_elements(rule, x),
    "captured by an optimizer's": lambda rule, x, here: map_elements(lambda p: p * rule(x[0]), here),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_arrays_on_another_device_is_left_to_cupy(name):
    """xpnet's kernels must not read such arrays. CuPy raises an error, or reads them if the devices can access each other."""
    x, here = (backend.asarray(np.ones(3, np.float32)) for backend in (second_device(), make_backend("cupy", device=0)))
    try:
        result = to_numpy(RULES[name](lambda x: x * 3.0, x, here))
    except ValueError as error:
        assert "different from the current device" in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(result, 3.0)


def test_tokens_are_counted_on_the_second_device():
    model = Model([Embedding(5, 2), Flatten(), Dense(3)], "softmax_cross_entropy", backend=second_device())
    tokens = np.arange(60).reshape(20, 3) % 5
    model.fit(tokens, Y[:20], verbose=0)

    with pytest.raises(ValueError, match="Received"):
        model.predict(tokens + 5)


def test_two_models_on_two_devices_at_once():
    models = [Model(DENSE, "softmax_cross_entropy", backend=backend)
              for backend in (make_backend("numpy"), second_device(), make_backend("cupy", device=0))]  # fmt: skip
    threads = [threading.Thread(target=lambda m=m: m.fit(X, Y, epochs=3, verbose=0)) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    reference, *others = [to_numpy(m.predict(X)) for m in models]
    for other in others:
        np.testing.assert_allclose(other, reference, rtol=1e-3, atol=1e-4)  # six steps in float32


def test_every_public_method_of_a_model_computes_on_its_device():
    """This test needs no second device."""
    methods = {name: value for name, value in vars(Model).items() if inspect.isfunction(value) and name[0] != "_"}

    assert {"fit", "predict", "evaluate", "build"} <= methods.keys()
    assert [name for name, method in methods.items() if not hasattr(method, "__wrapped__")] == []


ON_JAX = """
import pickle, jax, numpy as np
from tests.test_devices import CALLS, DENSE, X, Y
from xpnet import Adam, Model
from xpnet.backend import make_backend
from xpnet.tree import leaves

first, second = jax.devices()
model = Model(DENSE, "softmax_cross_entropy", Adam(0.01), ["accuracy"], backend=make_backend("jax", device=second))
for call in ("fit", *CALLS):
    CALLS[call](model)
    assert {x.device for x in leaves(model.state) if isinstance(x, jax.Array)} == {second}, call
copied = pickle.loads(pickle.dumps(model))
assert {x.device for x in leaves(copied.state) if isinstance(x, jax.Array)} == {second}
assert copied.predict(X).device == second
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_a_model_on_the_second_device_of_jax(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    done = subprocess.run([sys.executable, "-c", ON_JAX], capture_output=True, text=True)

    assert not done.returncode, done.stderr
