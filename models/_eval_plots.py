"""Pictures of an evaluation: curves, confusion, counts, and the boxes on their images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ._eval_result import Evaluation

_log = logging.getLogger("geosweep")

_COLOURS = {
    "correct": "#35d0ff",
    "misclassified": "#d08bff",
    "missed": "#ffd21f",
    "false": "#ff4d6d",
}
"""Bright enough for dark canopies, and apart for colour-blind readers."""
_SIDE = 1600
"""Longest side of an image in its picture."""
_MOST_BARS = 30
"""Images whose counts are drawn by name; of more, there is a scatter plot."""


def write_plots(
    evaluation: Evaluation, folder: Path, image_dir: str | Path | None, most_images: int
) -> list[Path]:
    """Write all pictures there are to an evaluation; see `Evaluation.plot`."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OutputError("Plots need matplotlib: install geosweep[train].") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be created: {error.strerror}.") from error
    paths = [_draw_curves(evaluation, folder / "precision_recall.png")]
    for name, table in evaluation.confusion.items():
        paths.append(draw_confusion(table, name, folder / f"confusion_{_safe(name)}.png"))
    if _on_map(evaluation):
        _log.info("Boxes are drawn over images only where the labels are in their pixels.")
    else:
        paths.append(_draw_counts(evaluation.per_image, folder / "counts.png"))
        paths += _draw_images(evaluation, folder / "images", image_dir, most_images)
    return paths


def _on_map(evaluation: Evaluation) -> bool:
    return evaluation.matches.crs is not None


def _figure(width: float, height: float, **options: Any) -> tuple[Any, Any]:
    # Not pyplot: it would choose a backend, and keep figures alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**options)


def _save(figure: Any, path: Path, **options: Any) -> Path:
    try:
        figure.savefig(path, dpi=110, **options)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}.") from error
    return path


def _draw_curves(evaluation: Evaluation, path: Path) -> Path:
    figure, axes = _figure(6, 5.4)
    shown: Mapping[str, pd.DataFrame] = evaluation.curves
    if len(shown) == 2:  # one label: its curve is that of all
        shown = {"(all)": shown["(all)"]}
    for name, curve in shown.items():
        thick = name == "(all)"
        axes.step(
            curve["recall"],
            curve["precision"],
            where="post",
            label=f"{name}, AP {_average_precision(evaluation, name):.3f}",
            linewidth=2.2 if thick else 1.2,
            color="black" if thick else None,
            zorder=3 if thick else 2,
        )
    if evaluation.predictions:
        axes.plot(
            evaluation.recall,
            evaluation.precision,
            "o",
            color="#d62728",
            zorder=4,
            label=f"score ≥ {evaluation.score_threshold:g}: F1 {evaluation.f1:.3f}",
        )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    axes.set_title(f"Precision over recall at IoU {evaluation.iou:g}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return _save(figure, path)


def _average_precision(evaluation: Evaluation, name: str) -> float:
    if name == "(all)":
        return evaluation.average_precision
    return float(evaluation.per_class.loc[name, "average_precision"])  # type: ignore[arg-type]


def draw_confusion(table: pd.DataFrame, name: str, path: Path) -> Path:
    """Draw a confusion matrix, true by predicted: counts over each row's shares."""
    counts = table.to_numpy(float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    rows, columns = counts.shape
    figure, axes = _figure(2.6 + 0.75 * columns, 1.9 + 0.6 * rows)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour)
    slanted = {"rotation": 35, "ha": "right"} if columns > 4 else {}
    axes.set_xticks(range(columns), table.columns, **slanted)
    axes.set_yticks(range(rows), table.index)
    axes.set(xlabel=f"predicted ({name})", ylabel="true", title="Confusion")
    return _save(figure, path)


def _draw_counts(images: pd.DataFrame, path: Path) -> Path:
    if len(images) <= _MOST_BARS:
        figure, axes = _figure(8, 1.6 + 0.42 * len(images))
        place = np.arange(len(images))
        axes.barh(place - 0.2, images["truths"], 0.38, label="labelled", color="#4c566a")
        axes.barh(place + 0.2, images["predictions"], 0.38, label="predicted", color="#1f9ed1")
        axes.set_yticks(place, [_short(str(name)) for name in images.index])
        axes.invert_yaxis()
        axes.set_xlabel("objects")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    else:
        figure, axes = _figure(5.6, 5.4)
        most = max(images["truths"].max(), images["predictions"].max(), 1)
        axes.plot([0, most], [0, most], color="#888888", linewidth=1, label="as many")
        axes.plot(images["truths"], images["predictions"], "o", alpha=0.5, label="one image")
        axes.set(xlabel="labelled objects", ylabel="predicted objects")
        axes.legend(loc="upper left")
    axes.set_title("Objects on each image")
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _draw_images(
    evaluation: Evaluation, folder: Path, image_dir: str | Path | None, most: int
) -> list[Path]:
    errors = evaluation.per_image[["missed", "misclassified", "false_positives"]].sum(axis=1)
    worst = errors.sort_values(ascending=False, kind="stable").index[:most]
    files = {str(name): _find(str(name), image_dir) for name in worst}
    absent = [name for name, file in files.items() if file is None]
    if absent:
        _log.warning(
            "%d of %d images are not drawn, since %s is not there: name their folder with --image-dir.",
            len(absent),
            len(files),
            absent[0],
        )
    paths = []
    for number, (name, file) in enumerate(files.items(), start=1):
        if file is not None:
            folder.mkdir(exist_ok=True)
            # The number keeps two images of one file name apart, and sorts by errors.
            path = folder / f"{number:02d}_{_safe(Path(name).stem)}.png"
            rows = evaluation.matches[evaluation.matches["image_path"] == name]
            paths.append(_draw_image(rows, name, file, path))
    return paths


def _find(name: str, image_dir: str | Path | None) -> str | None:
    if "://" in name:
        return name
    folder = Path(image_dir) if image_dir is not None else Path()
    candidates = [folder / name, folder / Path(name).name, Path(name)]
    return next((str(path) for path in candidates if path.is_file()), None)


def _draw_image(rows: Any, name: str, file: str, path: Path) -> Path:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    pixels, (width, height) = _read_pixels(file)
    wide = 9.0
    figure, axes = _figure(wide, wide * height / width + 0.7)
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    handles = []
    for outcome, colour in _COLOURS.items():
        mine = rows[rows["outcome"] == outcome]
        if outcome in ("correct", "misclassified"):
            # Thin and white: where the object is; coloured: where it was found.
            lines = _outlines(mine.geometry)
            axes.add_collection(LineCollection(lines, colors="white", linewidths=0.6, alpha=0.8))
            mine = mine.set_geometry("predicted_geometry")
        style = "--" if outcome == "missed" else "-"
        axes.add_collection(
            LineCollection(
                _outlines(mine.geometry), colors=colour, linewidths=1.5, linestyles=style
            )
        )
        if len(mine) or outcome != "misclassified":
            label = f"{outcome} {len(mine)}"
            handles.append(Line2D([], [], color=colour, linestyle=style, label=label, linewidth=2))
    handles.append(Line2D([], [], color="white", linewidth=1, label="label of a match"))
    axes.set_title(_short(name))
    axes.set_axis_off()
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        facecolor="#333333",
        labelcolor="white",
    )
    return _save(figure, path)


def _outlines(shapes: Any) -> list[NDArray[np.float64]]:
    import shapely

    return [shapely.get_coordinates(shape) for shape in shapes]


def _read_pixels(file: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Pixels (h, w, 3) at overview resolution, as bright as an eye likes; full width and height."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(file) as source:
            scale = min(1.0, _SIDE / max(source.width, source.height))
            shape = (max(1, round(source.height * scale)), max(1, round(source.width * scale)))
            bands = [1, 2, 3] if source.count >= 3 else [1, 1, 1]
            data = source.read(bands, out_shape=(3, *shape), masked=True)
            size = (source.width, source.height)
    except RasterioIOError as error:
        raise OutputError(f"{file} can't be read for its picture ({error}).") from error
    if data.dtype != np.uint8:
        values = data.compressed() if data.count() else np.zeros(1)
        low, high = np.percentile(values, [2, 98])
        data = np.clip((data.astype(float) - low) / max(high - low, 1e-9), 0, 1) * 255
    return np.moveaxis(np.ma.filled(data, 0).astype(np.uint8), 0, -1), size


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"…{name[-47:]}"


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
