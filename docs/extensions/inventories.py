"""The names that the documentation of other libraries defines. A library that cannot be reached is left out."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

LIBRARIES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "cupy": "https://docs.cupy.dev/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "jax": "https://docs.jax.dev/en/latest/",
    "sklearn": "https://scikit-learn.org/stable/",
}


def available(folder: Path) -> dict[str, tuple[str, str]]:
    """Return intersphinx's mapping. Each inventory is downloaded into `folder` once."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        found = pool.map(lambda name: _fetch(LIBRARIES[name], folder / f"{name}.inv"), LIBRARIES)
        return {name: (LIBRARIES[name], str(path)) for name, path in zip(LIBRARIES, found, strict=True) if path}


def _fetch(address: str, path: Path) -> Path | None:
    try:
        if not path.exists():
            with urlopen(f"{address}objects.inv", timeout=5) as answer:
                content = answer.read()
            if not content.startswith(b"# Sphinx inventory"):
                return None
            path.write_bytes(content)
        return path
    except OSError:
        return None
