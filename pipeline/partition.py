"""Folders of data files: where in `data/` a scene's rows lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..catalog import Scene

Partition = Literal["none", "year", "h3"]

H3_RESOLUTION = 3
"""Cells of 12,000 km², about a Sentinel-2 tile: hundreds of folders for a continent, 41,000 at most,
and hundreds of aerial scenes in each."""


def partition_folder(partition: Partition, scene: Scene) -> str:
    """Return the folder of a scene's data file, such as ``data/year=2022``.

    ``h3`` goes by the cell in which the footprint's centroid lies; of a footprint in several parts
    (across the antimeridian) by that of the largest, since the centroid of all may lie half a world
    away. What a scene does not tell is ``unknown``.
    """
    if partition == "year":
        return f"data/year={scene.datetime.year if scene.datetime else 'unknown'}"
    if partition == "h3":
        return f"data/h3={_cell(scene)}"
    return "data"


def _cell(scene: Scene) -> str:
    import h3
    import shapely

    footprint = scene.footprint
    if footprint is None or footprint.is_empty:
        return "unknown"
    largest = max(shapely.get_parts(footprint), key=shapely.area)
    centre = largest.centroid
    return h3.latlng_to_cell(centre.y, centre.x, H3_RESOLUTION)
