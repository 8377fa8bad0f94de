"""Files that are replaced as a whole. No arrays, so no backend."""

import errno
import os
from pathlib import Path

import pytest

from xpnet.files import replacing


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
