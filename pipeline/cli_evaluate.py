"""`geosweep evaluate`: predictions against labels, in a table, as JSON and in pictures."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ._console import err, guarded, out

if TYPE_CHECKING:
    from ..models import Evaluation

_MOST_IMAGES = 20
_COUNTS = {
    "truths": "true",
    "predictions": "pred.",
    "correct": "right",
    "misclassified": "mislab.",
    "missed": "missed",
    "false_positives": "false",
    "precision": "P",
    "recall": "R",
    "f1": "F1",
}
"""Headings of the columns that fit into a terminal."""


@guarded
def evaluate(
    predictions: Annotated[
        str,
        typer.Argument(
            metavar="PRED", help="Output of a run, CSV, GeoParquet …", show_default=False
        ),
    ],
    truth: Annotated[
        str,
        typer.Argument(
            metavar="TRUTH",
            help="Labels: CSV, COCO, VOC, YOLO; or a GeoPackage … in map coordinates.",
            show_default=False,
        ),
    ],
    iou: Annotated[float, typer.Option(help="Overlap that makes a match.")] = 0.4,
    score: Annotated[float, typer.Option(help="Least score of a prediction.")] = 0.0,
    matching: Annotated[
        str,
        typer.Option(
            help="overlap (largest shared area, as DeepForest) or score (best first, as COCO)."
        ),
    ] = "overlap",
    label_column: Annotated[
        str, typer.Option(help="Predicted label to compare, such as cropmodel_label.")
    ] = "label",
    class_agnostic: Annotated[
        bool, typer.Option("--class-agnostic", help="Compare places alone.")
    ] = False,
    coco: Annotated[bool, typer.Option(help="COCO's mean average precision, too.")] = True,
    image_dir: Annotated[
        Path | None, typer.Option(help="Folder of the images that TRUTH names.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pictures to this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures, for scripts.")] = False,
) -> None:
    """Compare predictions with labels: precision, recall, F1, mAP, by class and by image."""
    from ..models import evaluate as compare

    result = compare(
        _predictions(predictions),
        truth,
        iou,
        score_threshold=score,
        matching=matching,  # type: ignore[arg-type]
        label_column=label_column,
        class_agnostic=class_agnostic,
        coco=coco,
        root_dir=image_dir,
    )
    if as_json:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    else:
        _show(result)
    if plot is not None:
        paths = result.plot(plot, image_dir=image_dir)
        # Figures for scripts are alone on stdout.
        console = err if as_json else out
        console.print(f"{len(paths)} pictures: {plot}", soft_wrap=True, highlight=False)


def _predictions(name: str) -> Any:
    if "://" in name or Path(name).is_dir():
        from .outputs import read_output

        return read_output(name)
    return name


def _show(result: Evaluation) -> None:
    out.print(_summary(result))
    if len(result.per_class) > 1:
        out.print(
            _frame_table(
                "By label", result.per_class, "label", _COUNTS | {"average_precision": "AP"}
            )
        )
        out.print(_frame_table("Confusion", result.confusion["label"], "true \\ predicted"))
    for name, table in result.confusion.items():
        if name != "label":
            out.print(_frame_table(f"Confusion: {name}", table, "true \\ predicted"))
    if result.images > 1:
        errors = result.per_image[["missed", "misclassified", "false_positives"]].sum(axis=1)
        worst = errors.sort_values(ascending=False, kind="stable").index
        title = "By image"
        if result.images > _MOST_IMAGES:
            title += f": the {_MOST_IMAGES} of {result.images} with the most errors"
        shown = result.per_image.loc[worst[:_MOST_IMAGES]]
        out.print(_frame_table(title, shown, "image", _COUNTS))
    if not result.predictions:
        from_score = f" from score {result.score_threshold:g} on" if result.score_threshold else ""
        err.print(f"note: there are no predictions{from_score}.", highlight=False)
    if result.ignored:
        first = next(iter(result.ignored))
        err.print(
            f"note: {sum(result.ignored.values())} predictions on {len(result.ignored)} images that "
            f"the labels do not name (such as {first}) are left out.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _summary(result: Evaluation) -> Table:
    table = Table(title=f"Evaluation at IoU {result.iou:g}", show_header=False)
    on_map = result.matches.crs is not None
    if not on_map:
        without = f", {result.empty_images} without objects" if result.empty_images else ""
        table.add_row("images", f"{result.images}{without}")
    table.add_row("labelled", str(result.truths))
    table.add_row("predicted", str(result.predictions))
    table.add_row("found", str(result.matched))
    if len(result.per_class) > 1:
        share = f" ({_number(result.label_accuracy)} of those found)"
        table.add_row("… rightly labelled", f"{result.correct}{share}")
        table.add_row("… mislabelled", str(result.misclassified))
    table.add_row("missed", str(result.missed))
    table.add_row("false", str(result.false_positives))
    table.add_row("precision", _number(result.precision))
    table.add_row("recall", _number(result.recall))
    table.add_row("F1", _number(result.f1))
    if result.images > 1:
        table.add_row(
            "mean over images",
            f"precision {_number(result.image_precision)}, recall {_number(result.image_recall)}",
        )
    table.add_row(f"AP at IoU {result.iou:g}", _number(result.average_precision))
    if result.coco:
        rows = {"mAP, IoU 0.50–0.95": "map", "mAP at 0.50": "map_50", "mAP at 0.75": "map_75"}
        for name, key in rows.items():
            table.add_row(name, _number(result.coco[key]))
    if result.empty_images:
        table.add_row("empty images left empty", _number(result.empty_frame_accuracy))
    bias = f"{result.count_bias:+.3g}"
    if result.images > 1:
        bias += f" an image on average; off by {result.count_error:.3g}"
    table.add_row("predicted − labelled", bias)
    return table


def _frame_table(title: str, frame: Any, corner: str, names: dict[str, str] | None = None) -> Table:
    """A frame's columns: those that `names` gives a heading, or all."""
    headings = names or {name: str(name) for name in frame.columns}
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, collapse_padding=False)
    table.add_column(corner, overflow="fold")
    for heading in headings.values():
        table.add_column(heading, justify="right", no_wrap=True)
    columns = [[_number(value) for value in frame[name].tolist()] for name in headings]
    for index, *values in zip(frame.index, *columns, strict=True):
        table.add_row(str(index), *values)
    return table


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3f}"
