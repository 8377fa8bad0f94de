"""Estimators for scikit-learn: `MLPClassifier` and `MLPRegressor` as in scikit-learn, with features that users have asked for.

The package needs scikit-learn 1.9 or newer (the extra ``sklearn``), which ``import xpnet`` does not import.
"""

from typing import TYPE_CHECKING

from xpnet.errors import install_command, optional_import
from xpnet.lazy import lazy_names

if TYPE_CHECKING:  # the names of MODULES below, for editors and type checkers
    from xpnet.sklearn.classifier import MLPClassifier
    from xpnet.sklearn.exchange import from_model, from_sklearn, to_model, to_sklearn
    from xpnet.sklearn.neural_nets import NeuralNetClassifier, NeuralNetRegressor
    from xpnet.sklearn.regressor import MLPRegressor
    from xpnet.sklearn.search import BatchedGridSearchCV

_version = optional_import("sklearn", "sklearn").__version__
if tuple(map(int, _version.split(".")[:2])) < (1, 9):
    raise ImportError(
        f"xpnet.sklearn needs scikit-learn 1.9 or newer. Run: {install_command('sklearn')} Received: scikit-learn {_version}"
    )

MODULES = {
    "classifier": ["MLPClassifier"],
    "exchange": ["from_model", "from_sklearn", "to_model", "to_sklearn"],
    "neural_nets": ["NeuralNetClassifier", "NeuralNetRegressor"],
    "regressor": ["MLPRegressor"],
    "search": ["BatchedGridSearchCV"],
}

__getattr__, __dir__ = lazy_names(__name__, MODULES)

__all__ = [
    "BatchedGridSearchCV",
    "MLPClassifier",
    "MLPRegressor",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
    "from_model",
    "from_sklearn",
    "to_model",
    "to_sklearn",
]
