"""A run of `fit` in a training checkpoint, which is a model file with everything else that the rest of the run needs.

This consists of the averages of the current epoch, the states of the callbacks, and the settings and sizes that must not change.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import checkpoint, tensorfile
from xpnet.averages import Averages
from xpnet.backend import Backend, quiet
from xpnet.callbacks import Callback
from xpnet.callbacks.base import attach
from xpnet.checkpoint import RUN
from xpnet.checks import boolean, count
from xpnet.description import custom_classes, describe, rebuild
from xpnet.errors import CheckpointError
from xpnet.files import StrPath, as_path
from xpnet.groups import process
from xpnet.optimizers import Optimizer
from xpnet.packing import ArrayPacking, ArrayUnpacking
from xpnet.plan import Plan
from xpnet.settings import FitSettings
from xpnet.state import TrainingState
from xpnet.tensorfile import TensorFile, refusal
from xpnet.tree import map_leaves

SAME = ("network", "loss", "metrics", "layers", "seed", "dtype")  # the parts of a description that the model must share
MOST_PARTS = 1024  # of a batch, because a file must not start any number of threads
FREE = ("epochs", "verbose")  # the settings of fit that may differ in the resumed run
KEYS = {"settings", "sizes", "environment", "parts", "stop_training", "averages", "callbacks"}


class Run:
    """One run of `fit`.

    Parameters
    ----------
    model : Model
    callbacks : list of Callback
    resume_from : path-like, optional
        A training checkpoint, or a folder of them. The backup of a `BackupAndRestore`, if it exists, is used instead.
    """

    def __init__(self, model: Any, callbacks: Sequence[Callback], resume_from: StrPath | None):
        self.model, self.callbacks, self.unchecked = model, callbacks, callbacks
        self.active = [callback for callback in callbacks if not (callback.writes and process().rank)]
        resumed = None if resume_from is None else as_path(resume_from, "resume_from")
        backups = [path for callback in callbacks if (path := callback.backup()) is not None]
        self.path = backups[0] if backups else resumed
        self.optimizer: Optimizer = model.optimizer  # the one that the run began with
        self.notes: list[str] = []  # warnings
        self.before: dict[str, Any] = {}  # the attributes of the model, until the run is resumed
        if self.path is not None:
            self.before = vars(model) | {"training_state": copy.copy(model.training_state)}

    def begin(self, plan: Plan) -> Callable[[], None] | None:
        """Set the model's training state. For a run that resumes, return the function `restore` of `Loop.run`."""
        model, self.settings, self.sizes = self.model, plan.settings, _sizes(plan)
        if self.path is None:
            state = model.training_state
            state.begin_run(plan.settings.initial_epoch, plan.source.steps)
            state.parts = plan.parts(state.arrays["params"])
        else:
            with self._model_intact():
                with tensorfile.errors_named(self.path):
                    self.state, self.states = self._read(tensorfile.read(_newest(self.path)), plan)
                for note in self.notes if process().rank == 0 else ():
                    warnings.warn(note, stacklevel=5)
                self._set_state()
        model.validates = plan.validation is not None
        attach(self.callbacks, model, plan.settings.verbose, plan.settings.epochs, plan.source.steps)
        return None if self.path is None else self._restore

    def save(self, path: StrPath) -> None:
        """Write a training checkpoint. `Callback.on_pause` says when that is possible."""
        state = copy.copy(self.model.training_state)
        further = {"first_optimizer": self.optimizer, "next_optimizer": state.optimizer}
        averages = {"parts": state.averages.parts, "weight": state.averages.weight} if state.position else None
        if state.position:
            state.optimizer = state.epoch_optimizer
        arrays, description = checkpoint.contents(self.model, state, further)
        packing = ArrayPacking(RUN)
        callbacks = [{"class": type(c).__name__, "state": c.state_dict()} for c in self.callbacks]
        run = {
            "settings": _kept(self.settings),
            "sizes": self.sizes,
            "environment": _environment(self.model.backend),
            "parts": state.parts,
            "stop_training": bool(state.stop_training),
            "averages": averages,
            "callbacks": callbacks,
        }
        description["run"] = {name: packing.value(value, name) for name, value in run.items()}
        tensorfile.write(path, arrays | packing.arrays, description)

    def require_savable(self) -> None:
        """Raise CheckpointError if `save` could not write some part of the model, or the state of a callback."""
        for callback in self.callbacks:
            for method in ("state_dict", "load_state_dict"):
                if getattr(getattr(callback, method), "__func__", None) is getattr(Callback, method):
                    raise callback.without(method)
        checkpoint.contents(self.model, copy.copy(self.model.training_state), {})

    def require_savable_states(self) -> None:
        """Raise CheckpointError if the state of a callback holds something that a file cannot. Only the first call checks."""
        unchecked, self.unchecked = self.unchecked, []
        for callback in unchecked:
            with suppress(AttributeError):  # the state begins later, in the callback's own on_epoch_begin or a batch
                ArrayPacking(RUN).value(callback.state_dict(), f"{type(callback).__name__}.state_dict()")

    def _read(self, file: TensorFile, plan: Plan) -> tuple[TrainingState, list[tuple[Callback, dict[str, Any]]]]:
        """Check everything in a checkpoint. Return the training state, and the state of each callback."""
        model, about = self.model, file.description
        run = _run(file)
        ours = describe({name: getattr(model, name) for name in checkpoint.PARTS})
        ours |= {
            "seed": list(model.seeds) if isinstance(model.seed, tuple) else model.seed,
            "dtype": model.backend.float_name,
        }
        _require_same({name: about.get(name) for name in SAME}, {name: ours[name] for name in SAME})
        optimizers = [about.get(name) for name in ("first_optimizer", "optimizer", "next_optimizer")]
        if ours["optimizer"] not in optimizers:
            _require_same({"optimizer": optimizers[0]}, {"optimizer": ours["optimizer"]})
        _require_same(run["settings"], _kept(self.settings))
        _require_same(run["sizes"], self.sizes)
        states = self._states(run["callbacks"])

        custom = custom_classes({name: getattr(model, name) for name in checkpoint.PARTS})
        _, state, _, _ = checkpoint.read(file, custom, model.backend)
        if state.arrays is None:
            raise refusal("the arrays of a model", "a model without arrays")
        others = rebuild(about, ("first_optimizer", "next_optimizer"), custom)
        if not all(isinstance(optimizer, Optimizer) for optimizer in others.values()):
            raise refusal("optimizers", others)
        self.optimizer, state.optimizer = others["first_optimizer"], others["next_optimizer"]
        state.stop_training = boolean("stop_training", run["stop_training"])
        if (parts := count("parts", run["parts"])) > MOST_PARTS:
            raise refusal(f"parts of at most {MOST_PARTS}", parts)
        state.parts = plan.parts(model.state["params"], parts)
        if state.parts != parts:
            self.notes.append(
                f"The last bits may differ: batches had {parts} parts so far, and have {state.parts} now."
            )
        steps = self.sizes["training steps"]
        if state.position and steps is not None and state.position >= steps:
            raise refusal(f"a position below {steps}, the steps in an epoch", state.position)
        if state.position:
            state.averages = _averages(run["averages"], plan, (len(model.seeds),) * isinstance(model.seed, tuple))
        done = self.settings.initial_epoch + len(state.history.epoch)
        if done > self.settings.epochs:
            raise refusal(f"epochs of at least {done}, the number in the checkpoint", f"epochs={self.settings.epochs}")
        here = _environment(model.backend)
        if run["environment"] != here:
            self.notes.append(
                f"The last bits may differ from those of the run so far: {run['environment']}, now {here}."
            )
        return state, states

    def _states(self, saved: Any) -> list[tuple[Callback, dict[str, Any]]]:
        """Pair the callbacks with their states in the checkpoint, by class and order. Others begin without a state."""
        remaining, paired = list(self.callbacks), []
        for entry in saved:
            name, state = entry["class"], entry["state"]
            found = next((callback for callback in remaining if type(callback).__name__ == name), None)
            if found is not None:
                remaining.remove(found)
                paired.append((found, state))
            elif state:
                self.notes.append(
                    f"The checkpoint holds a state of {name!r:.80}, for which fit has received no callback."
                )
        return paired

    def _set_state(self) -> None:
        vars(self.model.training_state).update(vars(self.state))

    def _restore(self) -> None:
        with self._model_intact():
            for callback, state in [(c, state) for c, state in self.states if any(c is one for one in self.active)]:
                try:
                    callback.load_state_dict(state)
                except Exception as error:
                    expected = f"a state that {type(callback).__name__}.load_state_dict accepts"
                    received = f"{state!r:.200}, {error!r:.200}"
                    raise CheckpointError(f"{self.path}: {refusal(expected, received)}") from error
            self._set_state()
        del self.state, self.states, self.before  # they hold arrays

    @contextmanager
    def _model_intact(self) -> Iterator[None]:
        """Restore the model's attributes to their values before `fit` if the block raises an error."""
        try:
            yield
        except BaseException:
            vars(self.model).clear()
            vars(self.model).update(self.before)
            raise


def _newest(path: Path) -> Path:
    """Return the path of a file, or the newest training checkpoint in a folder."""
    if not path.is_dir():
        return path
    files = [(file.stat().st_mtime_ns, file) for file in path.iterdir() if file.is_file()]
    for _, file in sorted(files, reverse=True):
        try:
            if "run" in tensorfile.read(file).description:
                return file
        except (CheckpointError, OSError):
            continue
    raise refusal("a folder with a training checkpoint", f"{len(files)} other files")


def _sizes(plan: Plan) -> dict[str, Any]:
    """Return what must be the same about the data of the resumed run: the sizes, and whether samples have weights."""
    return {"training weights": plan.source.weighted} | {
        f"{name} {what}": getattr(source, what, None)
        for name, source in (("training", plan.source), ("validation", plan.validation))
        for what in ("samples", "steps", "shape")
        if source is not None
    }


def _environment(backend: Backend) -> dict[str, Any]:
    """Return everything except the settings that the last bits of a result depend on."""
    version = getattr(sys.modules.get(backend.name), "__version__", None)
    return {"backend": repr(backend), "version": version, "threads": backend.threads_in_use()}


def _kept(settings: FitSettings) -> dict[str, Any]:
    kept = {name: value for name, value in dataclasses.asdict(settings).items() if name not in FREE}
    freq = settings.validation_freq
    return kept | {"validation_freq": sorted(freq) if isinstance(freq, Collection) else freq}


def _run(file: TensorFile) -> dict[str, Any]:
    """Unpack the parts that only a run needs."""
    described = file.description.get("run")
    if described is None:
        raise refusal("a training checkpoint, which ModelCheckpoint or BackupAndRestore wrote", "another file")
    if not isinstance(described, dict) or described.keys() != KEYS:
        raise refusal(f"a run with {sorted(KEYS)}", described)
    names = [f"{RUN}{i}" for i in range(sum(name.startswith(RUN) for name in file.table))]
    if not file.table.keys() >= set(names):
        raise refusal(f"arrays {RUN}0, {RUN}1, ...", sorted(file.table))
    unpacking = ArrayUnpacking(list(tensorfile.arrays(file, names)))
    run = {name: unpacking.value(value, name) for name, value in described.items()}
    callbacks = run["callbacks"]
    fits = isinstance(callbacks, list) and all(
        isinstance(c, dict) and c.keys() == {"class", "state"} for c in callbacks
    )
    if not fits or not all(isinstance(run[name], dict) for name in ("settings", "sizes", "environment")):
        raise refusal("dicts of settings and sizes, and a list of callbacks", described)
    return run


def _require_same(saved: Any, ours: Any, place: str = "") -> None:
    """Raise CheckpointError for the first place where a checkpoint and the run that resumes it are different."""
    if isinstance(saved, dict) and isinstance(ours, dict):
        for key in sorted(saved.keys() | ours.keys()):
            _require_same(saved.get(key), ours.get(key), f"{place}.{key}" if place else key)
    elif isinstance(saved, list) and isinstance(ours, list) and len(saved) == len(ours):
        for i, values in enumerate(zip(saved, ours, strict=True)):
            _require_same(*values, f"{place}[{i}]")
    elif saved != ours:
        rule = "A run resumes with the model, data and arguments that it began with. Only epochs may be larger"
        raise refusal(f"{place}={saved!r:.100}, as in the checkpoint. {rule}", f"{place}={ours!r:.100}")


@quiet
def _averages(saved: Any, plan: Plan, networks: tuple[int, ...]) -> Averages:
    """Return the averages of the steps so far. They must have the form of this run's records, which will join them."""
    z = np.zeros((*networks, 1, *plan.measured[plan.source.shape].output_shape), plan.backend.float_name)
    record = plan.scores(plan.source.example, z, np.zeros(networks))
    record.pop("weight", None)
    averages = Averages(plan.scores.metrics)
    averages.weight, parts = saved["weight"], saved["parts"]

    def checked(like: np.ndarray, values: Any) -> np.ndarray:
        if values.dtype != np.float64 or values.shape != (*np.shape(like), *averages.weight.shape):
            raise refusal(f"averages of the form of {list(record)}", values)
        return values

    if parts.keys() != record.keys() or averages.weight.ndim != 1:
        raise refusal(f"averages of {list(record)}", parts.keys())
    checked(np.zeros(()), averages.weight)
    averages.parts = map_leaves(checked, record, parts)
    return averages
