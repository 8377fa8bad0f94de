"""Methods that all classifiers or all regressors share.

In `score`, targets and predictions come to the host, because scikit-learn's metrics cannot read those on a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score

from xpnet.backend import namespace
from xpnet.sklearn.arrays import on_host


class Classifier(ClassifierMixin, ABC):
    """scikit-learn's mixin for classifiers, and what follows from predictions, for samples in arrays of any library."""

    @abstractmethod
    def predict(self, X):
        """Return the prediction for each sample."""

    @abstractmethod
    def predict_proba(self, X):
        """Return the probability of each class."""

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`."""
        p = self.predict_proba(X)
        return namespace(p).log(p)

    def score(self, X, y, sample_weight=None):
        """Return the share of correct labels, or of samples with all labels correct."""
        return accuracy_score(on_host(y), on_host(self.predict(X)), sample_weight=on_host(sample_weight))


class Regressor(RegressorMixin, ABC):
    """scikit-learn's mixin for regressors, for samples in arrays of any library."""

    @abstractmethod
    def predict(self, X):
        """Return the prediction for each sample."""

    def score(self, X, y, sample_weight=None):
        """Return R², the mean over the outputs."""
        return r2_score(on_host(y), on_host(self.predict(X)), sample_weight=on_host(sample_weight))
