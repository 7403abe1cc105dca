"""STAC in, STAC out: sources of scenes, commit records and the storage behind them."""

from .changes import Changes, changes
from .collection import read_collection, write_collection, write_snapshot
from .create import CreateReport, create_catalog
from .errors import (
    ClusterError,
    DeviceMemoryError,
    GeosweepError,
    JobError,
    ModelError,
    OutputError,
    RasterError,
    SourceError,
    StorageError,
)
from .gdal import gdal_env
from .hrefs import gdal_path, public_href, scrub
from .publish import PublishReport, publish_output
from .records import Records, SceneRecord
from .scene import Access, Scene, SideAsset
from .sources import Source, open_source
from .spec import SourceSpec
from .stacitems import from_item, to_item
from .storage import MissingKeyError, Storage, open_storage
from .validate import OutputCheck, validate_output

__all__ = [
    "Access",
    "Changes",
    "ClusterError",
    "CreateReport",
    "DeviceMemoryError",
    "GeosweepError",
    "JobError",
    "MissingKeyError",
    "ModelError",
    "OutputCheck",
    "OutputError",
    "PublishReport",
    "RasterError",
    "Records",
    "Scene",
    "SceneRecord",
    "SideAsset",
    "Source",
    "SourceError",
    "SourceSpec",
    "Storage",
    "StorageError",
    "changes",
    "create_catalog",
    "from_item",
    "gdal_env",
    "gdal_path",
    "open_source",
    "open_storage",
    "public_href",
    "publish_output",
    "read_collection",
    "scrub",
    "to_item",
    "validate_output",
    "write_collection",
    "write_snapshot",
]
