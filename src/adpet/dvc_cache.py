"""Folder of DVC's cache, for `adpet.dvc_keeper` alone."""

from pathlib import Path


def cache_folder(root: Path = Path()) -> Path:
    """Return where DVC's cache of a project lies."""
    from dvc.config import Config

    configured = root / ".dvc"
    return Path(Config(dvc_dir=str(configured))["cache"].get("dir", configured / "cache")).resolve()
