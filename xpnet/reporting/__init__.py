"""One page about a trained model, with matplotlib (the extra ``plot``) and scikit-learn."""

from xpnet.reporting.sections import report

__all__ = ["report"]
