"""The `xp` fixture: every test that uses it runs once on each backend, always on NumPy, and on the others if installed.

It is an xpnet `Backend`: `xp.namespace` is the Array API namespace, and ``xp.asarray(host_array)`` and `xpnet.to_numpy`
move arrays. XPNET_TEST_BACKENDS selects backends by name, for example ``XPNET_TEST_BACKENDS=numpy,cupy``. If a selected
backend cannot run, that is an error, not a skip.
"""

import dataclasses
import functools
import os
import re
import signal
import sys
import weakref
from collections import Counter, defaultdict
from contextlib import contextmanager

import array_api_strict
import hypothesis
import numpy as np
import pytest
from array_api_strict._array_object import Array

from xpnet import datasets, workshop
from xpnet.backend import make_backend
from xpnet.backend.numpy import NumpyBackend
from xpnet.errors import BackendNotAvailableError, DatasetError

hypothesis.settings.register_profile("repeatable", derandomize=True)  # the same examples in every run
hypothesis.settings.load_profile("repeatable")
os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it once
for name in ("XPNET_BACKEND", "JAX_ENABLE_X64", "CUPY_TF32"):  # a user's settings would change the tests
    os.environ.pop(name, None)

NAMES = ("numpy", "numpy-readonly", "strict", "torch", "jax", "cupy")


class ReadOnlyNumpy(NumpyBackend):
    """NumPy with read-only arrays, which catch a layer that writes into its arguments."""

    def asarray(self, x, dtype=None):
        x = super().asarray(x, dtype).copy()
        x.flags.writeable = False
        return x


class NumpyInParts(NumpyBackend):
    """NumPy that divides every batch among two threads, and computes each part in two pieces, however small."""

    def __reduce__(self):
        return make, ("numpy-parts", self.float_name)

    def __repr__(self):
        return super().__repr__()[:-1] + ", parts>"

    def parts(self, activations, parameters):
        return 2

    def pieces(self, activations, parameters):
        return 2


def pytest_configure(config):
    if os.environ.get("FAKECUDA_POISON", "0") != "0":
        from tests.cuda_emulator.poison import PoisonFreed

        PoisonFreed().__enter__()


def pytest_make_parametrize_id(val, argname):
    """Do not name a test after a file's content, which may contain the time: pytest-xdist's workers must agree on names."""
    return argname if isinstance(val, bytes) else None


def make(name, dtype="float32"):
    if name == "strict":
        return make_backend("array_api_strict", device="device1", dtype=dtype)
    if name in ("numpy-readonly", "numpy-parts"):
        numpy, kind = make_backend("numpy", dtype=dtype), ReadOnlyNumpy if name == "numpy-readonly" else NumpyInParts
        return kind(**{field.name: getattr(numpy, field.name) for field in dataclasses.fields(numpy)})
    if name == "cupy-graphs":
        return make_backend("cupy", dtype=dtype, graphs=True)
    if name == "cupy-second":  # a device that is not the current one
        return make_backend("cupy", device=1, dtype=dtype)
    if name == "jax-second":  # one of the CPU's, with XLA_FLAGS=--xla_force_host_platform_device_count=2
        return make_backend("jax", device="cpu:1", dtype=dtype)
    return make_backend(name, dtype=dtype)


@contextmanager
def only_on(device_wanted):
    """Fail if array-api-strict creates an array on another device, even if that array is never combined with others."""
    original = Array.__dict__["_new"]

    @functools.wraps(original.__func__)  # pickle finds the method by its name
    def new(cls, x, /, device):
        chosen = device or array_api_strict.Device("CPU_DEVICE")
        assert chosen == device_wanted, f"array made on {chosen}, not on {device_wanted}"
        return original.__func__(cls, x, device=chosen)

    Array._new = classmethod(new)
    try:
        yield
    finally:
        Array._new = original


@contextmanager
def no_sync():
    """Fail if a value of an array-api-strict array is read on the host."""
    names = ("__float__", "__int__", "__bool__", "__index__", "__array__", "__dlpack__")
    originals = {name: getattr(Array, name) for name in names if hasattr(Array, name)}

    def refuse(*args, **kwargs):
        raise AssertionError("the value of an array was read on the host")

    for name in originals:
        setattr(Array, name, refuse)
    try:
        yield
    finally:
        for name, method in originals.items():
            setattr(Array, name, method)


def _reason_to_skip(name):
    try:
        make(name)
    except BackendNotAvailableError as error:
        return str(error)
    return None


_picked = os.environ.get("XPNET_TEST_BACKENDS")
_names = tuple(name.strip() for name in _picked.split(",")) if _picked else NAMES
EXAMPLES_ON = [
    name for name in ("numpy", "cupy") if name == "numpy" or (_picked and name in _names)
]  # the others take longer
_reasons = {name: None if _picked else _reason_to_skip(name) for name in _names}


_params = [
    pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else []) for name, reason in _reasons.items()
]


@pytest.fixture(params=_params)
def xp_elsewhere(request):
    """A backend as in `xp`, for tests in which another library creates arrays too, on any device."""
    return make(request.param)


@pytest.fixture(params=_params)
def xp(request):
    """A backend with float32 as its default type."""
    backend = make(request.param)
    if request.param != "strict":
        yield backend
    else:
        with only_on(backend.device):
            yield backend


@pytest.fixture(autouse=True)
def jax_in_float32():
    """Undo what set_backend("jax", dtype="float64") changes for the whole process."""
    yield
    if (jax := sys.modules.get("jax")) is not None and jax.config.read("jax_enable_x64"):
        jax.config.update("jax_enable_x64", False)


@pytest.fixture
def xp64(xp):
    """The same backend with float64 as its default type, for gradient checks."""
    if xp.name == "jax":
        import jax

        with jax.enable_x64(True):
            yield dataclasses.replace(xp, dtype=xp.namespace.float64)
    else:
        yield dataclasses.replace(xp, dtype=xp.namespace.float64)


@pytest.fixture
def fresh_jax(monkeypatch):
    """The module of the JAX backend, in which models share no compiled code with those of other tests."""
    jax = pytest.importorskip("xpnet.backend.jax")
    monkeypatch.setattr(workshop, "_alive", defaultdict(weakref.WeakKeyDictionary))
    monkeypatch.setattr(jax, "compiled_functions", weakref.WeakKeyDictionary())
    return jax


@pytest.fixture
def listening():
    """Handle Ctrl-C as Python does in a terminal, because a background process may have been started to ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def real_mnist():
    """MNIST from the folders of this machine, because tests download nothing."""
    try:
        return datasets.mnist(download=False)
    except DatasetError as error:
        pytest.skip(f"MNIST is not on this machine; set XPNET_DATA to its folder: {error}")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_terminal_summary(terminalreporter):
    """Show the skipped tests by backend and reason, because a line for each test would fill the screen."""
    reports = terminalreporter.stats.get("skipped", [])
    if reports:
        terminalreporter.section("skipped")
        for (backend, reason), count in Counter(map(_backend_and_reason, reports)).most_common():
            terminalreporter.line(f"{count:6,}  {backend:14}  {reason}")


def _backend_and_reason(report):
    """Return a skipped test's backend ("" if its parameters have none) and the reason."""
    parameters = report.nodeid.partition("[")[2]
    found = [name for name in NAMES if re.search(rf"\b{name}\b", parameters)]
    return max(found, key=len, default=""), report.longrepr[2].removeprefix("Skipped: ")
