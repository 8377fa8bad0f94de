"""Array libraries: which one computes, on which device, how arrays move there, and how the training loop runs.

Only this package knows the names of array libraries. Each library has a module, which is imported when it is first used.
"""

from xpnet.backend.base import Backend, all_in_scope, device, in_scope, namespace, quiet, size
from xpnet.backend.conversion import real_numbers, to_numpy
from xpnet.backend.switch import (
    asarray,
    available_backends,
    backend_of_array,
    get_backend,
    make_backend,
    set_backend,
    show_versions,
    use_backend,
)

__all__ = [
    "Backend",
    "all_in_scope",
    "asarray",
    "available_backends",
    "backend_of_array",
    "device",
    "get_backend",
    "in_scope",
    "make_backend",
    "namespace",
    "quiet",
    "real_numbers",
    "set_backend",
    "show_versions",
    "size",
    "to_numpy",
    "use_backend",
]
