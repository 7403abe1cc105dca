"""The job file: what to sweep, with which models, into which output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..catalog import SourceSpec
from ..catalog.area import read_area
from ..catalog.spec import Ranges, as_pairs, check_bands, check_ranges
from ..catalog.strict import Block, checked, read_yaml
from .cluster_spec import ClusterSpec

PIPELINE_REVISION = 1
"""Raised whenever the same job on the same pixels may give other rows."""

_RESERVED = ("detector", "tile_filter")
"""Keys of other models among the models' versions, which the fingerprint hashes by name."""


class WindowSpec(Block):
    """How a scene is cut. `size` in pixels, `overlap` a fraction of it, `resolution` in metres."""

    size: int = Field(default=400, ge=32, le=8192)
    overlap: float = Field(default=0.05, ge=0.0, lt=1.0)
    resolution: float | None = Field(default=None, gt=0)


class DetectorSpec(Block):
    """Which detector; None for a threshold means the one recorded with the weights."""

    model: str = "geosweep/tree"
    score_threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    nms_iou: float | None = Field(default=None, gt=0.0, le=1.0)
    batch_size: int | Literal["auto"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    backend: Literal["torch", "compile", "onnx", "openvino"] = "torch"
    device: str | None = None

    @field_validator("batch_size", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if value != "auto" and (type(value) is not int or value < 1):
            raise ValueError("must be a whole number from 1, or 'auto'")
        return value


class TileFilterSpec(Block):
    """A classifier of whole windows that keeps empty ones from the detector.

    `empty_threshold` None means the one recorded with the weights.
    """

    model: str
    empty_threshold: float | None = Field(default=None, ge=0.0, le=1.0)


class CropModelSpec(Block):
    """A classifier for the detections' crops.

    `expand` adds context, in pixels on each side. `bands` and `rescale` are of the raster that crops are
    cut from: the one that is swept, or that of another `asset` of the item, found by map coordinates.
    """

    name: str = Field(default="cropmodel", pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    model: str
    batch_size: int = Field(default=64, ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    backend: Literal["torch", "compile", "onnx", "openvino"] = "torch"
    expand: int | None = Field(default=None, ge=0)
    scores: bool = False
    asset: str | None = None
    bands: tuple[int | str, ...] | None = Field(default=None, min_length=1)
    rescale: tuple[tuple[float, float], ...] | None = Field(default=None, min_length=1)

    @field_validator("rescale", mode="before")
    @classmethod
    def _one_pair(cls, value: Any) -> Any:
        return as_pairs(value)

    @field_validator("rescale")
    @classmethod
    def _ascending(cls, value: Ranges | None) -> Ranges | None:
        return check_ranges(value, "rescale")

    @field_validator("bands")
    @classmethod
    def _numbered_from_1(cls, value: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        return check_bands(value, "bands")


def crop_prefix(number: int) -> str:
    """Column prefix of crop model `number` (from 0) where the user gave no names."""
    return f"cropmodel_{number}" if number else "cropmodel"


class MergeSpec(Block):
    """How duplicates are removed: between windows of a scene, and between overlapping scenes."""

    windows: Literal["core", "nms"] = "core"
    iou: float = Field(default=0.15, gt=0.0, le=1.0)
    scenes: Literal["latest", "none"] = "latest"


class OutputSpec(Block):
    """Where the dataset goes. `crs: null` keeps pixel coordinates."""

    path: str
    partition: Literal["none", "year", "h3"] = "none"
    crs: str | None = "EPSG:4326"

    @field_validator("path")
    @classmethod
    def _home(cls, value: str) -> str:
        return value if "://" in value else str(Path(value).expanduser())

    @field_validator("crs")
    @classmethod
    def _known_crs(cls, value: str | None) -> str | None:
        if value is not None:
            from pyproj import CRS
            from pyproj.exceptions import CRSError

            try:
                CRS.from_user_input(value)
            except CRSError as error:
                raise ValueError(
                    f"{value!r} is no known CRS; write for example EPSG:4326"
                ) from error
        return value


class Job(Block):
    """A whole job, as written in a job file.

    Build one with `Job.from_yaml(path)`, `Job.from_dict(mapping)` or by keyword arguments.
    """

    name: str = Field(default="geosweep", min_length=1)
    source: SourceSpec
    windows: WindowSpec = WindowSpec()
    tile_filter: TileFilterSpec | None = None
    detector: DetectorSpec = DetectorSpec()
    crop_models: tuple[CropModelSpec, ...] = ()
    merge: MergeSpec = MergeSpec()
    output: OutputSpec
    cluster: ClusterSpec = ClusterSpec()

    @field_validator("crop_models")
    @classmethod
    def _distinct_columns(cls, value: tuple[CropModelSpec, ...]) -> tuple[CropModelSpec, ...]:
        names = [spec.name for spec in value]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(
                f"two crop models are named {sorted(twice)[0]!r}; give each its own name"
            )
        taken = next((name for name in _RESERVED if name in names), None)
        if taken is not None:
            raise ValueError(f"no crop model can be named {taken!r}; choose another name")
        return value

    @model_validator(mode="after")
    def _assets_need_items(self) -> Self:
        other = next((spec for spec in self.crop_models if spec.asset is not None), None)
        if other is not None and self.source.rasters is not None:
            raise ValueError(
                f"crop model {other.name!r} wants its crops from the asset {other.asset!r}, and plain "
                "rasters have no assets; list rasters and assets as STAC items in source.stac"
            )
        return self

    @model_validator(mode="after")
    def _asks_for_what_it_uses(self) -> Self:
        asked, device = self.cluster.autoscale, self.detector.device
        if asked is not None and device is not None and (device == "cpu") != (asked.unit == "CPU"):
            right = "cpus" if device == "cpu" else "gpus"
            raise ValueError(
                f"cluster.autoscale asks for {asked.unit}s, but detector.device is {device!r}; write "
                f"{{{right}: {asked.number}}}, or another device"
            )
        return self

    @property
    def crop_assets(self) -> tuple[str, ...]:
        """Assets that crop models want besides the one that is swept."""
        assets = (spec.asset for spec in self.crop_models if spec.asset is not None)
        return tuple(dict.fromkeys(assets))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a job file.

        Raises
        ------
        JobError
            If the file can't be read, isn't YAML, or a key or value is wrong.
        """
        return cls.from_dict(read_yaml(path), where=str(path))

    @classmethod
    def from_dict(cls, content: Any, *, where: str = "the job") -> Self:
        """Validate a mapping; `where` names it in errors.

        Raises
        ------
        JobError
            With one sentence that names the key, the value and the nearest valid key.
        """
        return checked(cls, content, where)

    def to_public_dict(self) -> dict[str, Any]:
        """The job as plain JSON types, for records (hrefs without credentials)."""
        from ..catalog.hrefs import public_href

        def clean(value: Any) -> Any:
            if isinstance(value, str) and "://" in value:
                return public_href(value)
            if isinstance(value, dict):
                return {key: clean(item) for key, item in value.items()}
            return [clean(item) for item in value] if isinstance(value, list) else value

        return clean(self.model_dump(mode="json"))

    def fingerprint(self, versions: dict[str, str]) -> str:
        """Hash of everything in the job that decides its rows (16 hex digits).

        Batch sizes, actor counts, the output's place and the set of scenes are left out: they do not
        change a scene's rows.

        Parameters
        ----------
        versions
            Version of each model by its name in the job.
        """
        source = self.source.model_dump(mode="json", include={"bands", "rescale", "asset", "bbox"})
        # Models count by their versions: the same weights may lie elsewhere on the next machine.
        aside = {"model", "batch_size", "device"}
        usual = {"backend"} if self.detector.backend == "torch" else set()
        detector = self.detector.model_dump(mode="json", exclude=aside | usual)
        crops = [
            spec.model_dump(mode="json", exclude=aside | _unset(spec)) for spec in self.crop_models
        ]
        content = {
            "revision": PIPELINE_REVISION,
            "source": source,
            "windows": self.windows.model_dump(mode="json"),
            "detector": detector,
            "crop_models": crops,
            "merge": self.merge.model_dump(mode="json"),
            "crs": self.output.crs,
            "versions": versions,
        }
        # Only where there is one: outputs made before there were tile filters go on.
        if self.tile_filter is not None:
            content["tile_filter"] = self.tile_filter.model_dump(mode="json", exclude=aside)
        if self.source.intersects is not None:
            # The ground counts, not the file's name.
            content["area"] = read_area(self.source.intersects).wkt
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unset(spec: CropModelSpec) -> set[str]:
    """Newer keys that are not given: outputs made before there were such keys go on."""
    newer = {"asset": None, "bands": None, "rescale": None, "backend": "torch", "precision": "auto"}
    return {key for key, usual in newer.items() if getattr(spec, key) == usual}
