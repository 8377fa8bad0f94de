"""scikit-learn's own callbacks, such as `sklearn.callback.ProgressBar`: a fit is a task, and each epoch is a subtask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.callback import CallbackContext, CallbackSupportMixin

from xpnet.callbacks import Callback
from xpnet.model import Model


class Tasks(CallbackSupportMixin, ABC):
    """An estimator with the method `set_callbacks` of scikit-learn."""

    @abstractmethod
    def _fitted(self, model: Model) -> dict[str, Any]:
        """Return the attributes of a copy of this estimator that is fitted as far as the model."""

    @contextmanager
    def _task(self, epochs: int, X: Any, y: Any, sample_weight: Any) -> Iterator[list[Callback]]:
        """Make the block a task of `epochs` subtasks. Yield callbacks of xpnet that announce them, none if nobody listens."""
        if not getattr(self, "_skl_callbacks", None):
            yield []
            return
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        data = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        context = self._init_callback_context(max_subtasks=epochs)
        context.call_on_fit_task_begin(**data)
        yield [Epochs(context, data, self._fitted)]
        context.call_on_fit_task_end(**data, reconstruction_attributes={})


class Epochs(Callback):
    """Announces each epoch to scikit-learn's callbacks, and stops the training if one of them returns True.

    Parameters
    ----------
    context : CallbackContext
        The fit's.
    data : dict
        The arguments of all of its calls.
    fitted : callable
        ``fitted(model)`` returns the attributes of the fitted estimator.
    """

    def __init__(self, context: CallbackContext, data: dict[str, Any], fitted: Any):
        self.context, self.data, self.fitted = context, data, fitted

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.data)

    def on_epoch_end(self, epoch, logs=None):
        if self.epoch.call_on_fit_task_end(**self.data, reconstruction_attributes=lambda: self.fitted(self.model)):
            self.model.stop_training = True
