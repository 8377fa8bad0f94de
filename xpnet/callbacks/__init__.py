"""Callbacks of `fit`, `evaluate` and `predict`, named as in Keras."""

from typing import TYPE_CHECKING

from xpnet.callbacks.base import Callback
from xpnet.callbacks.stopping import EarlyStopping, TerminateOnNaN
from xpnet.lazy import lazy_names

if TYPE_CHECKING:  # the names of MODULES below, for editors and type checkers
    from xpnet.callbacks.finder import LearningRateFinder
    from xpnet.callbacks.functions import LambdaCallback
    from xpnet.callbacks.loggers import CSVLogger, JSONLinesLogger
    from xpnet.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
    from xpnet.callbacks.saving import BackupAndRestore, ModelCheckpoint
    from xpnet.callbacks.tensorboard import TensorBoard

MODULES = {
    "finder": ["LearningRateFinder"],
    "functions": ["LambdaCallback"],
    "loggers": ["CSVLogger", "JSONLinesLogger"],
    "rates": ["LearningRateScheduler", "ReduceLROnPlateau"],
    "saving": ["BackupAndRestore", "ModelCheckpoint"],
    "tensorboard": ["TensorBoard"],
}
__getattr__, __dir__ = lazy_names(__name__, MODULES)

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "JSONLinesLogger",
    "LambdaCallback",
    "LearningRateFinder",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
