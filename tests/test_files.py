"""Files that are replaced as a whole. No arrays, so no backend."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import Model, datasets
from xpnet.callbacks import BackupAndRestore, CSVLogger, JSONLinesLogger, ModelCheckpoint, TensorBoard
from xpnet.files import replacing
from xpnet.layers import Dense


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null on this system")
def test_a_device_is_never_replaced():
    with (
        pytest.raises(FileExistsError, match="/dev/null must be a regular file"),
        replacing(Path("/dev/null")),
    ):
        pass


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match=r"No space left.*file'$"), replacing(path) as file:
        file.write(b"new")

    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("path", lambda model, path: model.save(path)),
        ("path", lambda model, path: model.save_weights(path)),
        ("path", lambda model, path: model.load_weights(path)),
        ("path", lambda model, path: xpnet.load_model(path)),
        ("path", lambda model, path: datasets.read_idx(path)),
        ("filepath", lambda model, path: ModelCheckpoint(path)),
        ("backup_dir", lambda model, path: BackupAndRestore(path)),
        ("filename", lambda model, path: CSVLogger(path)),
        ("filename", lambda model, path: JSONLinesLogger(path)),
        ("log_dir", lambda model, path: TensorBoard(path)),
        ("resume_from", lambda model, path: model.fit(np.ones((4, 2)), np.arange(4) % 2, resume_from=path)),
    ],
)  # fmt: skip
def test_something_else_than_a_path_is_refused_by_name(name, use):
    model = Model([Dense(2)], "softmax_cross_entropy").build((2,))
    with pytest.raises(TypeError, match=rf'{name} must be a path such as ".*Received: {name}=3'):
        use(model, 3)
    assert model.step == 0
