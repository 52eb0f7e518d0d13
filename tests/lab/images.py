"""Images made from a directory, in the form of `docker save`, which every engine loads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path


def save_image(rootfs: Path, name: str, to: Path, command: list[str]) -> None:
    """Write an image of one layer, with a PATH and this command, under a full name with its tag."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as packed:
        packed.add(rootfs, arcname=".")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer.getvalue())}"]},
        "history": [{}],
    }
    text = json.dumps(config).encode()
    manifest = [{"Config": f"{_digest(text)}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(to, "w") as image:
        for member, data in (
            (f"{_digest(text)}.json", text),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(member)
            entry.size, entry.mode = len(data), 0o644
            image.addfile(entry, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
