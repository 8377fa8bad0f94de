"""Plots of training and of what a network learned, with matplotlib (the extra ``plot``).

A function with one panel draws on `ax` and returns it. A function with several panels fills `figure`, which may be a
subfigure, and returns it. By default, each function creates a new figure. The functions do not show the figure, so they need
no screen. Arrays may belong to any array library. The colors are the palette of M. Okabe and K. Ito, which color-blind
readers can tell apart. Text and background follow matplotlib's style, light or dark (``plt.style.use("dark_background")``).
"""

from xpnet.plotting.animation import Animation
from xpnet.plotting.curves import learning_curves, learning_rate_curve
from xpnet.plotting.diagrams import network_diagram
from xpnet.plotting.images import image_grid, prediction_bars, weight_images
from xpnet.plotting.predictions import calibration, calibration_error, decision_regions, loss_slice
from xpnet.plotting.summaries import confusion_matrix, layer_statistics

__all__ = [
    "Animation",
    "calibration",
    "calibration_error",
    "confusion_matrix",
    "decision_regions",
    "image_grid",
    "layer_statistics",
    "learning_curves",
    "learning_rate_curve",
    "loss_slice",
    "network_diagram",
    "prediction_bars",
    "weight_images",
]
