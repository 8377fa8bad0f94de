"""Every quantity of one training step."""

import copy

import numpy as np
import pytest

from tests.containers import X, Y, gate, model
from tests.test_graph_safety import NETWORKS
from tests.test_model import make_model, spirals, writable
from xpnet import SGD, Adam, Model, explain
from xpnet.backend import make_backend, to_numpy, workers
from xpnet.layers import Dense, Dropout, Flatten, Sigmoid, Tanh, TimeDistributed
from xpnet.layers.embedding import Embedding
from xpnet.random import step_keys
from xpnet.tree import named_leaves

SPIRALS = tuple(array[:10] for array in spirals())


def real_step(trained, x, y):
    """The training step itself: return its gradients, record and new arrays, by name."""
    key = trained.backend.asarray(step_keys(trained.seeds[0], np.array([trained.step]))[0])
    batch = trained.prepare(x, y) | {"key": key}
    with trained.backend.scope():
        grads, _, record = trained.training_step.gradients(trained.backend.copy(trained.state), batch)
    host = {f"{name}": np.array(to_numpy(g)) for name, g in named_leaves(grads)}
    after = copy.deepcopy(trained)
    after.train_on_batch(x, y)
    return host, np.array(to_numpy(record["loss"])), after.state_dict()


def named(name, mark="", end=""):
    path, _, parameter = name.rpartition(".")
    symbol = {"weight": "W", "bias": "b", "recurrent_weight": "R"}.get(parameter, parameter)
    return f"{path}.{mark}{symbol}{end}"


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_are_those_of_the_training_step(name, optimizer, xp):
    """They are equal bit for bit. JAX runs the explained step without compilation, so sums there round differently."""
    if xp.compiles and (optimizer != SGD(0.1) or name not in ("dense", "dropout", "nested", "shared normalization")):
        pytest.skip("on JAX, a few networks are enough, because compiling takes long")
    shape, layers = NETWORKS[name]
    rng = np.random.default_rng(0)
    tokens = isinstance(layers[0], Embedding)
    x = rng.integers(0, 7, (6, *shape)) if tokens else rng.normal(size=(6, *shape)).astype("float32")
    trained = Model(layers, "mean_squared_error", optimizer, backend=writable(xp)).build(shape)
    y = rng.normal(size=(6, *trained.measured[shape].output_shape)).astype("float32")
    before = trained.state_dict()

    explained = explain(trained, x, y)
    grads, loss, after = real_step(trained, x, y)

    rounds = xp.compiles or xp.parts(0, 0) > 1
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if rounds else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(explained["loss"], loss, **tolerance)
    for leaf, g in grads.items():
        np.testing.assert_allclose(explained[named(leaf, "d")], g, **tolerance, err_msg=leaf)
        if optimizer == SGD(0.1) or not rounds:  # Adam divides by √v, which is rounding noise where a gradient is 0
            np.testing.assert_allclose(explained[named(leaf, end="_new")], after[leaf], **tolerance, err_msg=leaf)
    for leaf, value in trained.state_dict().items():
        np.testing.assert_array_equal(value, before[leaf])
    assert trained.step == 0


def test_the_example_of_backprop_md(xp):
    """2 - 2 - 1, sigmoid, all weights 1, x = (-2, -1), target 1: docs/backprop.md, "one path by hand"."""
    trained = model(xp, [Dense(2), Sigmoid(), Dense(1), Sigmoid()], SGD(1.0), shape=(2,))
    trained.set_weights([np.ones((2, 2)), np.zeros((1, 2)), np.ones((2, 1)), np.zeros((1, 1))])

    explained = explain(trained, np.array([[-2.0, -1.0]]), np.array([1.0]))

    np.testing.assert_allclose(explained["1.y"], [[0.04742587, 0.04742587]], rtol=1e-5)
    np.testing.assert_allclose(explained["z"], [[0.52369517]], rtol=1e-6)
    np.testing.assert_allclose(explained["dz"], [[-0.95260965]], rtol=1e-6)
    np.testing.assert_allclose(explained["2.dx"], [[-0.23761756] * 2], rtol=1e-6)
    np.testing.assert_allclose(explained["0.dW"][0], [0.02146954] * 2, rtol=1e-5)
    np.testing.assert_allclose(explained["0.W_new"], explained["0.W"] - explained["0.dW"], rtol=1e-6)


def test_one_array_has_one_row_and_several_names(xp):
    explained = explain(make_model(xp), *SPIRALS)

    assert explained["0.y"] is explained["1.x"]
    assert explained["z"] is explained["3.y"]
    assert explained["dz"] is explained["3.dy"]
    assert [q.names[:2] for q in explained.quantities[:4]] == [["x", "0.x"], ["0.W"], ["0.b"], ["0.y", "1.x"]]
    np.testing.assert_allclose(explained["p"].sum(axis=1), 1.0, rtol=1e-5)
    assert explained["0.W_velocity"].shape == (2, 16)


def test_sees_through_containers_and_wrappers(xp):
    explained = explain(model(xp, [gate(), Dense(3)]), X, Y)
    assert explained["0.gate.0.dW"].shape == (4, 3)
    assert not np.array_equal(explained["0.layer.dy"], explained["0.dy"])  # dy · g, which the container computes

    wrapped = explain(model(xp, [TimeDistributed(Dense(2)), Flatten(), Dense(3)], shape=(2, 4)), np.stack([X, X], 1), Y)
    assert wrapped["0.y"].shape == (20, 2, 2)
    assert wrapped["0.Dense.y"].shape == (40, 2)


def test_gradients_of_one_layer_at_two_places_are_added(xp):
    shared = Dense(4)

    explained = explain(model(xp, [shared, shared, Dense(3)]), X, Y)

    np.testing.assert_allclose(explained["0.dW"], explained["0.dW_part"] + explained["1.dW"], rtol=1e-5, atol=1e-7)


def test_the_optimizers_own_numbers_have_names_of_their_own(xp):
    """The t of Adam is not the target t."""
    explained = explain(make_model(xp, Adam(0.1)), *SPIRALS)

    np.testing.assert_array_equal(explained["t"], SPIRALS[1])
    assert explained["optimizer.t"] == 1


def test_several_networks_have_a_leading_axis(xp):
    explained = explain(model(xp, [Dense(3)]), X, Y)
    several = explain(Model([Dense(3)], "mean_squared_error", SGD(0.1), seed=(0, 1), backend=writable(xp)), X, Y)

    assert several["0.dW"].shape == (2, 4, 3)
    np.testing.assert_allclose(several["0.dW"][0], explained["0.dW"], rtol=1e-5, atol=1e-7)


def test_dropout_draws_the_mask_of_the_next_step(xp):
    trained = model(xp, [Dropout(0.5), Dense(3)])
    first = explain(trained, X, Y)["0.y"]
    again = explain(trained, X, Y)["0.y"]
    trained.train_on_batch(X, Y)
    second = explain(trained, X, Y)["0.y"]

    np.testing.assert_array_equal(first, again)
    assert np.any((first == 0) != (second == 0))


def test_a_batch_that_threads_would_divide_is_explained_as_a_whole(monkeypatch):
    """Only NumPy's backend divides batches."""
    monkeypatch.setattr(workers, "LARGE", 0)
    monkeypatch.setattr(workers, "MANY", 1)
    trained = model(make_backend("numpy", threads=2), [Dense(8), Tanh(), Dense(3)])

    explained = explain(trained, X, Y)
    trained.train_on_batch(X, Y)

    assert explained["0.y"].shape == (20, 8)
    np.testing.assert_allclose(explained["0.W_new"], trained.state_dict()["0.weight"], rtol=1e-5)


def test_explains_a_model_that_is_not_built(xp):
    fresh = make_model(xp)
    explained = explain(fresh, *SPIRALS)

    assert fresh.state is None
    np.testing.assert_array_equal(explained["0.W"], make_model(xp).build((2,)).state_dict()["0.weight"])


def test_samples_without_weight_are_left_out(xp):
    weights = np.array([0.0, 1.0, 2.0, 0.0])

    explained = explain(model(xp, [Dense(3)]), X[:4], Y[:4], sample_weight=weights)

    assert explained["x"].shape == (2, 4)
    np.testing.assert_array_equal(explained["w"], [1.0, 2.0])


def test_prints_a_table_of_80_columns():
    """Small arrays whole, large ones by statistics. Only on NumPy, because text is the same everywhere."""
    numpy = make_backend("numpy")
    trained = model(numpy, [Dense(1)], shape=(2,))
    trained.set_weights([np.array([[1.0], [2.0]]), np.zeros((1, 1))])

    assert str(explain(trained, np.array([[3.0, 4.0]]), np.array([10.0]))) == (
        "quantity   shape   formula\n"
        "------------------------------------------------\n"
        "forward:\n"
        "x = 0.x    (1, 2)\n"
        "            3          4\n"
        "0.W        (2, 1)\n"
        "            1\n"
        "            2\n"
        "0.b        (1, 1)\n"
        "            0\n"
        "0.y = z    (1, 1)  y = x W + b\n"
        "           11\n"
        "loss:\n"
        "t          (1, 1)  the targets\n"
        "           10\n"
        "loss       ()      loss = Σ l / n,  l = (z - t)²\n"
        "            1\n"
        "dz = 0.dy  (1, 1)  dz = 2 (z - t), times 1/n\n"
        "            2\n"
        "backward:\n"
        "0.dW       (2, 1)  dW = xᵀ dy\n"
        "            6\n"
        "            8\n"
        "0.db       (1, 1)  db = Σ_batch dy\n"
        "            2\n"
        "update:\n"
        "0.W_new    (2, 1)  W - 0.1 dW\n"
        "          0.4\n"
        "          1.2\n"
        "0.b_new    (1, 1)  b - 0.1 db\n"
        "         -0.2"
    )
    large = str(explain(make_model(numpy), *SPIRALS))
    assert "0.W           (2, 16)\n    min -" in large
    assert max(map(len, large.splitlines())) <= 80


def test_an_unknown_name_is_answered_with_near_ones():
    explained = explain(model(make_backend("numpy"), [Dense(3)]), X, Y)

    with pytest.raises(KeyError, match=r"0\.dW"):
        explained["0.dw"]


def test_html_escapes():
    html = explain(model(make_backend("numpy"), [Dense(3)]), X, Y)._repr_html_()

    assert html.startswith("<table>")
    assert "<td" in html
