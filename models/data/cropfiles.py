"""Crops on disk: one folder for each label, as torchvision's ImageFolder has them."""

from __future__ import annotations

import hashlib
import re
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from ...catalog.errors import AnnotationError
from .cutting import CropRaster
from .headers import image_location, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|%]|^[. ]|[. ]$')
_LONGEST = 200
_TIFF = (".tif", ".tiff")


def label_folder(label: str) -> str:
    r"""Name the folder of a label's crops.

    Characters that some file system refuses or that would lead elsewhere (``/ \ : * ? " < > | %``,
    control characters, a dot or space at either end) are written as in URLs: ``Quercus/alba`` lies
    in ``Quercus%2Falba``. `folder_label` gives the label back.

    Raises
    ------
    AnnotationError
        If the label is empty or longer than 200 bytes.
    """
    name = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", label)
    if not label or len(name.encode()) > _LONGEST:
        what = "is empty" if not label else f"begins with {label[:30]!r} and is too long"
        raise AnnotationError(
            f"A label {what}: crops lie in folders named by their label, so give it 1 to {_LONGEST} "
            "bytes."
        )
    return name


def folder_label(folder: str) -> str:
    """Return the label of a folder that `label_folder` named."""
    return unquote(folder)


def write_crops(
    boxes: ArrayLike,
    labels: Sequence[Any],
    image_path: str | Path | Sequence[str | Path],
    savedir: str | Path,
    *,
    root_dir: str | Path | None = None,
    expand: float = 0,
    bands: Sequence[int | str] | None = None,
    rescale: Sequence[Any] | None = None,
) -> list[Path]:
    """Write the crop of each box to ``savedir/LABEL/``, cut as predictions are cut.

    Each raster is opened once and read in pieces of some megabytes, wherever the boxes are. A file's
    name holds the raster's, the rectangle that was cut, and a hash of the raster's whole path, bands
    and rescaling: the same crop has always the same name, other crops have others.

    Parameters
    ----------
    boxes
        (N, 4): xmin, ymin, xmax, ymax in pixels. They may reach over the image's edge, where they
        are cut off; a box without area gives one pixel.
    labels
        The N labels. `label_folder` says how they become folders.
    image_path
        The raster of all boxes, or of each.
    savedir
        Made if it is not there.
    root_dir
        Folder of relative image paths.
    expand
        Pixels of context on each side.
    bands
        Bands of a crop, by 1-based numbers or names; None for the three colours.
    rescale
        The values that become 0 and 255: one pair, or one for each band.

    Returns
    -------
    list of Path
        The N files: PNG for one or three bands of 8 bit, GeoTIFF for others.

    Raises
    ------
    AnnotationError
        If a box or label can't be used, or the numbers of boxes and labels differ.
    RasterError
        If a raster can't be read.
    """
    boxes, names, files = _checked(boxes, labels, image_path, root_dir)
    savedir = Path(savedir)
    folders = {name: savedir / label_folder(name) for name in set(names)}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = [savedir] * len(names)
    for file in dict.fromkeys(files):
        rows = np.flatnonzero([name == file for name in files])
        with CropRaster(file, bands, rescale) as raster:
            _check_inside(boxes[rows], rows, raster, file)
            tag = partial(_file_name, file, (bands, rescale))
            for number, pixels in raster.crops(boxes[rows], expand):
                row = int(rows[number])
                path = folders[names[row]] / tag(boxes[row], expand, pixels)
                save_crop(path, pixels)
                written[row] = path
    return written


def _checked(
    boxes: ArrayLike,
    labels: Sequence[Any],
    image_path: str | Path | Sequence[str | Path],
    root_dir: str | Path | None,
) -> tuple[NDArray[np.float64], list[str], list[str]]:
    if isinstance(boxes, (str, Path)):
        raise AnnotationError(
            f"write_crops got {str(boxes)!r} as boxes: its arguments are boxes, labels, image_path "
            "and savedir; name them, if they come in DeepForest's order."
        )
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    names = [label if isinstance(label, str) else _label_text(label) for label in labels]
    one = isinstance(image_path, (str, Path))
    images = [image_path] * len(array) if one else list(image_path)  # type: ignore[arg-type]
    if not len(array) == len(names) == len(images):
        raise AnnotationError(
            f"There are {len(array)} boxes, {len(names)} labels and {len(images)} images; give as "
            "many of each, or one image for all."
        )
    bad = ~np.isfinite(array).all(1) | (array[:, 2:] < array[:, :2]).any(1)
    bad |= np.array([not name for name in names], bool)
    if bad.any():
        i = int(np.argmax(bad))
        raise AnnotationError(
            f"Box {i} is {array[i].tolist()} with the label {names[i]!r}: give xmin, ymin, xmax, "
            "ymax with xmin ≤ xmax and ymin ≤ ymax, and a label."
        )
    root = root_dir or "."
    return array, names, [image_location(root, str(image)) for image in images]


def _label_text(label: Any) -> str:
    missing = label is None or (isinstance(label, float) and np.isnan(label))
    return "" if missing else str(label)


def _check_inside(
    boxes: NDArray[np.float64], rows: NDArray[np.int64], raster: CropRaster, file: str
) -> None:
    size = [raster.width, raster.height]
    outside = (boxes[:, :2] >= size).any(1) | (boxes[:, 2:] < 0).any(1)
    if outside.any():
        i = int(np.argmax(outside))
        raise AnnotationError(
            f"Box {rows[i]}, {boxes[i].tolist()}, lies outside {shown(file)}, which is {size[0]} × {size[1]} "
            "pixels; mend or drop it."
        )


def _file_name(
    file: str, reading: Any, box: NDArray[np.float64], expand: float, pixels: NDArray[Any]
) -> str:
    remote = "://" in file
    place = file.split("?", maxsplit=1)[0] if remote else str(Path(file).resolve())
    digest = hashlib.blake2b(f"{place} {reading}".encode(), digest_size=5).hexdigest()
    stem = _UNSAFE.sub("_", Path(place).stem)[:80]
    corners = "_".join(str(int(value)) for value in box)
    context = f"_{expand:g}" if expand else ""
    ending = "png" if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3) else "tif"
    return f"{stem}_{corners}{context}_{digest}.{ending}"


def save_crop(path: Path, pixels: NDArray[Any]) -> None:
    """Write a crop (h, w, bands): PNG, or GeoTIFF if the path says so; both without loss."""
    if path.suffix not in _TIFF:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
        return
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    height, width, count = pixels.shape
    profile = {"width": width, "height": height, "count": count, "dtype": pixels.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", compress="DEFLATE", **profile) as file:
            file.write(pixels.transpose(2, 0, 1))


def read_crop(path: str | Path, num_bands: int = 3) -> NDArray[Any]:
    """Read a crop as (h, w, num_bands), uint8, or float32 from a GeoTIFF of floats.

    Anything but a GeoTIFF is read as torchvision reads it: turned into RGB if three bands are asked
    for, or into grey if one is.

    Raises
    ------
    AnnotationError
        If it can't be read or has other bands.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in _TIFF:
            pixels = _read_tiff(path)
        else:
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"its pixels are of PIL's mode {image.mode}, expected 8-bit")
                mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(num_bands, image.mode)
                pixels = np.array(image if image.mode == mode else image.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:
        raise AnnotationError(f"{path}: can't be read as a crop ({error}); remove it.") from error
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.shape[2] != num_bands:
        raise AnnotationError(
            f"{path}: has {pixels.shape[2]} bands, the crop model takes {num_bands}; make it with "
            f"CropModel(bands=…), naming as many."
        )
    return pixels


def _read_tiff(path: Path) -> NDArray[Any]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                data = file.read()
    except RasterioError as error:
        raise OSError(str(error)) from error
    if data.dtype != np.uint8 and data.dtype.kind != "f":
        raise ValueError(f"its pixels are {data.dtype}, expected uint8 or float32")
    kept = data if data.dtype == np.uint8 else data.astype(np.float32)
    return np.ascontiguousarray(kept.transpose(1, 2, 0))
