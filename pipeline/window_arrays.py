"""A raster's windows with map coordinates, for models that geosweep does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affine import Affine

from ..catalog.hrefs import public_href
from ..catalog.spec import SourceSpec, bbox_geometry
from ..catalog.strict import checked
from .bands import BandSelection, select_bands
from .job import WindowSpec
from .raster import RasterSource
from .region import Region
from .scene_reader import plan_scene
from .stream import StreamCounts, stream_windows, warn_of_damage

if TYPE_CHECKING:
    import xarray as xr
    from shapely.geometry.base import BaseGeometry


def iter_windows(
    path: str | Path,
    *,
    size: int = 400,
    overlap: float = 0.05,
    bands: Sequence[int | str] | None = None,
    rescale: Sequence[Any] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
) -> Iterator[xr.DataArray]:
    """Stream a raster's windows, each with its place on the map, to a model of your own.

    Every block of the file is decoded once, in a thread that reads ahead. Windows without any data
    are left out; those on corrupt blocks, too, and the log says which.

    Parameters
    ----------
    path
        Raster file or URL.
    size, overlap
        Window side in pixels, and the share of it that neighbours have in common. The last window of a
        row or column is shifted inwards; one of a raster smaller than a window is filled up with zeros.
    bands
        Numbers or names; None for all.
    rescale
        (low, high) for all bands or for each: mapped to 0–255 as uint8. None leaves values alone.
    bbox
        Only windows that touch west, south, east, north (degrees).

    Yields
    ------
    xarray.DataArray
        Dimensions (band, y, x), the raster's dtype; coordinates of pixel centres in the raster's CRS
        (`spatial_ref`); attributes `col_off`, `row_off` (pixels), `window` (row-major number).

    Raises
    ------
    RasterError
        If the raster can't be opened or read.
    """
    import xarray as xr
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    chosen = select_bands(bands, rescale)
    source = RasterSource(str(path), BandSelection(chosen.bands, chosen.rescale, use="anyone"))
    try:
        aoi = area_of_interest(bbox)
        windows = checked(WindowSpec, {"size": size, "overlap": overlap}, "the arguments")
        header, plan = plan_scene(source, windows, Region(aoi))
        transform = source.transform or Affine.identity()
        names = list(chosen.bands) if chosen.bands is not None else list(range(1, source.count + 1))
        counts = StreamCounts()
        for batch in stream_windows(source, header.grid, plan.wanted, batch_size=1, counts=counts):
            index = int(batch.index[0])
            x, y = (int(offset) for offset in header.grid.offsets(batch.index)[0])
            box = GeoBox((size, size), transform @ Affine.translation(x, y), source.crs)
            yield xr.DataArray(
                batch.pixels[0],
                dims=("band", *box.dimensions),
                coords={"band": names, **xr_coords(box)},
                attrs={"col_off": x, "row_off": y, "window": index},
            ).rename({box.dimensions[0]: "y", box.dimensions[1]: "x"})
        warn_of_damage(public_href(str(path)), counts)
    finally:
        source.close()


def area_of_interest(bbox: tuple[float, float, float, float] | None) -> BaseGeometry | None:
    """Geometry of a box in degrees, checked as the job file's is."""
    if bbox is None:
        return None
    spec = checked(SourceSpec, {"rasters": ["-"], "bbox": bbox}, "the arguments")
    assert spec.bbox is not None
    return bbox_geometry(spec.bbox)
