"""Pictures of training and of what was learned, with matplotlib (the extra ``plot``).

A function with one panel draws on `ax` and returns it; one with several fills `figure`, which may be a subfigure of a page,
and returns it. Without either it makes a new figure. Nothing is shown, so no screen is needed. Arrays may be of any library.
Colors are those of M. Okabe and K. Ito, which color-blind readers can tell apart; text and background are those of
matplotlib's style, light or dark (``plt.style.use("dark_background")``).
"""

from xpnet.plotting.curves import learning_curves
from xpnet.plotting.images import image_grid, prediction_bars, weight_images
from xpnet.plotting.summaries import confusion_matrix, layer_statistics

__all__ = ["confusion_matrix", "image_grid", "layer_statistics", "learning_curves", "prediction_bars", "weight_images"]
