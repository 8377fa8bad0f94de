"""Loads models from files."""

from __future__ import annotations

from collections.abc import Mapping

from xpnet import checkpoint, tensorfile
from xpnet.backend import Backend, get_backend, make_backend
from xpnet.description import check_custom
from xpnet.files import StrPath
from xpnet.layers import contracts
from xpnet.layers.shapes import measure
from xpnet.model import Model
from xpnet.tensorfile import errors_named


def load_model(
    path: StrPath, backend: str | Backend | None = None, *, custom_objects: Mapping[str, type] | None = None
) -> Model:
    """Read a model that `Model.save` wrote. Training continues where it stopped.

    A file holds settings and numbers, and nothing in it is executed, so you can read files from any origin. Custom classes
    are used only if you pass them.

    Parameters
    ----------
    path : path-like
    backend : str or Backend, optional
        The default is the current backend. Arrays get its float type, whatever type the file holds.
    custom_objects : mapping of str to class, optional
        Custom layers, losses, metrics and so on by name: ``{"Sine": Sine}``. Each is a dataclass.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        The file is damaged, too new, or not the file of a model; a custom class is missing or does not accept its settings.
    """
    custom = check_custom(custom_objects)
    target = get_backend() if backend is None else make_backend(backend)
    with target.scope(), errors_named(path):
        parts, state, shape, others = checkpoint.read(tensorfile.read(path), custom, target)
        model = Model(**parts, seed=state.seed, backend=target)
        model.training_state = state
        vars(model).update(others)
        if shape is not None:
            model.input_shape, model.measured = shape, {shape: measure(model.network, shape)}
            model.checked = contracts.checked(model.network, shape)
    return model
