"""Shared by the tests of the data sets: small arrays, and files of them, written from the definition of the format."""

import numpy as np


def idx_bytes(array):
    """Return the content of an IDX file."""
    code = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + np.asarray(array.shape, dtype=">u4").tobytes()
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def equal(left, right):
    """Whether values, shapes and types are equal at every level of nested pairs."""
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return np.array_equal(left, right) and left.dtype == right.dtype


def little_set():
    """Return a small data set in MNIST's form: ``(x_train, y_train), (x_test, y_test)``."""
    rng = np.random.default_rng(0)

    def split(n):
        return rng.integers(256, size=(n, 28, 28), dtype=np.uint8), rng.integers(10, size=n, dtype=np.uint8)

    return split(7), split(3)


# A self-signed certificate of 127.0.0.1 and its key, only for the tests. Nothing should trust it.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLFgsgwJVM4ZSBjaQ
O36CpLteDTPtCxnMH1JQ4my33B+hRANCAAQ78FxosGOn4CAwzEUiWAm3h2HR8WHY
ajIp5WLafDykcLOoBH+MBcaxXuGEuyuC1eHPGRC1F7Y1kPhbqE0jtzw/
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUSjUzHFVxzGx0IE2Oml532q5UcBgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNjAxMDUxNVoYDzIxMjYxMTAy
MDEwNTE1WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQ78FxosGOn4CAwzEUiWAm3h2HR8WHYajIp5WLafDykcLOoBH+MBcax
XuGEuyuC1eHPGRC1F7Y1kPhbqE0jtzw/o2QwYjAdBgNVHQ4EFgQUQgcFnEFDIC7U
2IqwrM0sJR/yoA8wHwYDVR0jBBgwFoAUQgcFnEFDIC7U2IqwrM0sJR/yoA8wDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IQDXr+TfO/+a3c9OFd+IrPSALmzqZwEB91Q+DCwEQ/qoPQIgePX5LO5gobCozOYu
HSPMz2JSneT2c2Lfw4iEuZ5TEgw=
-----END CERTIFICATE-----
"""
