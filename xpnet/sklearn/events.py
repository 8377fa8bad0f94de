"""xpnet's callbacks during the fit of an estimator."""

from __future__ import annotations

from typing import Any

from xpnet.callbacks import Callback
from xpnet.callbacks.base import attach, call
from xpnet.history import History
from xpnet.model import Model
from xpnet.optimizers import Optimizer
from xpnet.sklearn.engine import Engine
from xpnet.sklearn.training import Trainer


class Events:
    """Calls the callbacks of one fit, before and after it and each epoch, and records its history.

    The callbacks see a `Model` that shares the arrays of the fit. They may change its state and stop the training.

    Parameters
    ----------
    callbacks : list of Callback
    engine : Engine
    optimizer : Optimizer
    trainer : Trainer
    features : int
    epochs : int
        The largest number of epochs.
    validates : bool
    """

    def __init__(
        self,
        callbacks: list[Callback],
        engine: Engine,
        optimizer: Optimizer,
        trainer: Trainer,
        features: int,
        epochs: int,
        validates: bool,
    ):
        self.trainer, self.history = trainer, History()
        self.listed = callbacks
        if callbacks:
            self.model = Model(engine.network, engine.loss, optimizer, backend=engine.backend)
            self.model.build((features,))
            self.model.validates, self.model.history = validates, self.history
            attach(callbacks, self.model, 0, epochs, -(-trainer.rows // trainer.batch_size))

    def tell(self, event: str, *arguments: Any) -> bool:
        """Call a method of all callbacks. Return whether one of them stops the training."""
        if not self.listed:
            return False
        self.model.state, self.model.step = self.trainer.arrays, self.trainer.solver.steps
        call(self.listed, event, *arguments)
        self.trainer.arrays = self.model.state
        return self.model.stop_training

    def epoch_ends(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Record the values of an epoch and call the callbacks. Return whether one of them stops the training."""
        self.history.epoch.append(epoch)
        if "val_loss" in logs:
            self.history.validation_epoch.append(epoch)
        self.history.add(self.history.history, logs)
        if self.listed:
            self.model.epoch = epoch + 1
        return self.tell("on_epoch_end", epoch, logs)
