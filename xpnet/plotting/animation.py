"""Pictures of a training run as an animation."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

from xpnet.callbacks import Callback
from xpnet.checks import count, require
from xpnet.errors import optional_import
from xpnet.files import StrPath, as_path, replacing


class Animation(Callback):
    """A callback that draws the model before training and after every epoch, for a GIF or a player in a notebook.

    Parameters
    ----------
    draw : callable
        ``draw(model)`` returns a figure or axes, such as ``lambda model: decision_regions(model, x, y)``. Each figure is
        closed after it has been saved.
    every : int, default 1
        Draw after every `every`-th epoch.

    Attributes
    ----------
    frames : list of bytes
        The pictures, as PNG files.
    """

    def __init__(self, draw: Callable[[Any], Any], every: int = 1):
        super().__init__()
        self.draw, self.every = draw, count("every", every)
        self.frames: list[bytes] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.frames = []
        if self.model.state is not None:
            self.add("before training")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every == 0:
            self.add(f"after epoch {epoch + 1}")

    def add(self, title: str) -> None:
        """Draw the model as it is now."""
        drawn, file = self.draw(self.model), io.BytesIO()
        figure = getattr(drawn, "figure", None) or drawn
        if not hasattr(figure, "savefig"):
            raise TypeError(f"draw(model) must return a matplotlib figure or axes. Received: {drawn!r}")
        figure.suptitle(title)
        figure.savefig(file, format="png", dpi=100, facecolor="white")
        optional_import("matplotlib.pyplot", "plot").close(figure)
        self.frames.append(file.getvalue())

    def save(self, path: StrPath, seconds: float = 0.3) -> None:
        """Write a GIF that shows each frame for so many seconds, and the last one four times as long. It needs Pillow."""
        path, pillow = as_path(path), optional_import("PIL.Image", "data")
        if not self.frames:
            raise ValueError(
                "The animation has no frames yet. Run model.fit(..., callbacks=[animation]) first. Received: 0 frames"
            )
        require(path.suffix.lower() == ".gif", "save writes a GIF, so the name must end in .gif", f"path={str(path)!r}")
        images = [pillow.open(io.BytesIO(frame)).convert("P", palette=pillow.Palette.ADAPTIVE) for frame in self.frames]
        times = [int(1000 * seconds)] * (len(images) - 1) + [int(4000 * seconds)]
        with replacing(path) as file:
            images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=times, loop=0)

    def _repr_html_(self) -> str:
        """A player with a slider."""
        sources = [f"data:image/png;base64,{base64.b64encode(frame).decode('ascii')}" for frame in self.frames]
        name = f"xpnet{id(self)}"
        images = "".join(
            f'<img src="{source}" alt="frame {i}" {"hidden" if i else ""}>' for i, source in enumerate(sources)
        )
        show = "[...this.parentNode.parentNode.querySelectorAll('img')].forEach((image, i) => (image.hidden = i != this.value))"
        return (
            f'<div id="{name}">{images}<div><input type="range" min="0" max="{max(len(sources) - 1, 0)}" value="0" '
            f'aria-label="frame" oninput="{show}"></div></div>'
        )
