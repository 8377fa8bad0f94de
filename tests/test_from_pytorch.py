"""The tables of docs/from-pytorch.md, compared with PyTorch. They are about names and defaults, so there is no `xp` fixture."""

import inspect
import re

import numpy as np
import pytest

import xpnet
from tests.scripts import ROOT
from xpnet import Model, callbacks, layers, losses, optimizers, schedules
from xpnet.callbacks import LambdaCallback
from xpnet.layers import Dense

torch = pytest.importorskip("torch", reason="needs the extra torch")

PAGE = (ROOT / "docs" / "from-pytorch.md").read_text(encoding="utf-8")
NAMES, DEFAULTS = (
    re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", part, re.MULTILINE)[1:] for part in PAGE.split("## ")[2:4]
)
HOMES = {
    "nn": torch.nn,
    "optim": torch.optim,
    "lr_scheduler": torch.optim.lr_scheduler,
    "utils": torch.utils,
    "torch": torch,
}


def default(call, home):
    """Return the default of the setting in `call`, such as "LayerNorm(eps=1e-5)", and the number that is written there."""
    name, setting, value = re.fullmatch(r"(\w+)\((\w+)=(.+)\)", call).groups()
    return inspect.signature(getattr(home, name)).parameters[setting].default, float(value)


def test_the_tables_are_read():
    assert len(NAMES) > 35
    assert len(DEFAULTS) == 10


def test_every_name_of_pytorch_exists():
    for row in NAMES:
        for home, name in re.findall(r"`(nn|optim|lr_scheduler|utils|torch)\.([\w.]+)", row[0]):
            value = HOMES[home]
            for part in name.split("."):
                value = getattr(value, part)


def test_every_name_of_xpnet_exists():
    homes = (xpnet, layers, losses, optimizers, schedules, callbacks)
    named = {name for row in NAMES for name in re.findall(r"`([A-Z]\w+)", row[1])}

    assert len(named) > 50
    assert not {name for name in named if not any(hasattr(home, name) for home in homes)}


@pytest.mark.parametrize("row", DEFAULTS, ids=lambda row: row[0])
def test_defaults(row):
    (home, theirs), ours = row[0].strip("`").split(".", 1), row[1].strip("`")
    found, written = default(theirs, HOMES[home])
    assert found == written

    found, written = default(ours, layers if home == "nn" else optimizers)
    assert found == written


def test_class_weights_are_the_weight_of_cross_entropy(rng):
    x, y, weight = rng.normal(size=(20, 4)), rng.integers(0, 3, 20), np.array([1.0, 5.0, 0.5])
    model = Model(
        [Dense(3)], "softmax_cross_entropy", "sgd", backend=xpnet.backend.make_backend("numpy", dtype="float64")
    )
    result = model.train_on_batch(x, y, class_weight=dict(enumerate(weight)))
    model = Model(
        [Dense(3)], "softmax_cross_entropy", backend=xpnet.backend.make_backend("numpy", dtype="float64")
    ).build((4,))
    z = torch.tensor(np.asarray(model.predict_logits(x)))

    assert float(result.loss) == pytest.approx(
        torch.nn.CrossEntropyLoss(torch.tensor(weight))(z, torch.tensor(y)).item(), rel=1e-12
    )


def test_learning_rates_on_a_plateau(rng):
    """After `patience` epochs without improvement; PyTorch waits for one more."""
    x, rates = np.zeros((4, 2)), []
    model = Model([Dense(1)], "mse", optimizers.SGD(1.0))
    plateau = callbacks.ReduceLROnPlateau("loss", patience=2)
    record = LambdaCallback(on_epoch_begin=lambda epoch, logs=None: rates.append(model.optimizer.learning_rate))
    model.fit(x, np.zeros(4), epochs=5, verbose=0, callbacks=[plateau, record])

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2), []
    for _ in range(5):
        theirs.append(optimizer.param_groups[0]["lr"])
        scheduler.step(0.0)

    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1])
    assert theirs == pytest.approx([1, 1, 1, 1, 0.1])
