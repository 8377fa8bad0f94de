"""xpnet: neural networks on any array library, with all mathematics written once.

import xpnet
from xpnet import Model, SGD, Sequential
from xpnet.layers import Dense, ReLU

xpnet.set_backend("numpy")  # or "cupy", "torch", "jax", "auto"
model = Model(Sequential([Dense(100), ReLU(), Dense(10)]), loss="softmax_cross_entropy", optimizer=SGD(0.1))
model.fit(x_train, y_train, epochs=10)
"""

from typing import TYPE_CHECKING

from xpnet import callbacks, initializers, layers, losses, metrics, optimizers, schedules
from xpnet.backend import (
    Backend,
    asarray,
    available_backends,
    get_backend,
    set_backend,
    show_versions,
    to_numpy,
    use_backend,
)
from xpnet.callbacks import Callback, EarlyStopping
from xpnet.errors import (
    BackendNotAvailableError,
    CheckpointError,
    ConversionError,
    DatasetError,
    DivergenceError,
    SourceError,
)
from xpnet.history import History
from xpnet.layers.sequential import Sequential
from xpnet.lazy import lazy_names
from xpnet.model import Model
from xpnet.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

if TYPE_CHECKING:
    from xpnet.comparison import compare_backends
    from xpnet.ensemble import Ensemble
    from xpnet.explanation import explain
    from xpnet.gradients import check_gradients, saliency
    from xpnet.many import train_many
    from xpnet.reporting import report
    from xpnet.restore import load_model

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "comparison": ["compare_backends"],
        "datasets": [],
        "distributed": [],
        "ensemble": ["Ensemble"],
        "explanation": ["explain"],
        "gradients": ["check_gradients", "saliency"],
        "inspection": [],
        "interchange": [],
        "many": ["train_many"],
        "playground": [],
        "plotting": [],
        "reporting": ["report"],
        "restore": ["load_model"],
        "sklearn": [],
    },
)

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Backend",
    "BackendNotAvailableError",
    "Callback",
    "CheckpointError",
    "ConversionError",
    "DatasetError",
    "DivergenceError",
    "EarlyStopping",
    "Ensemble",
    "History",
    "Model",
    "RMSprop",
    "Sequential",
    "SourceError",
    "asarray",
    "available_backends",
    "callbacks",
    "check_gradients",
    "compare_backends",
    "datasets",
    "explain",
    "get_backend",
    "initializers",
    "interchange",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "optimizers",
    "report",
    "saliency",
    "schedules",
    "set_backend",
    "show_versions",
    "to_numpy",
    "train_many",
    "use_backend",
]
