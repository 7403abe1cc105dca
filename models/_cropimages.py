"""The half of CropModel that works on images: crops written to disk, boxes classified in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..catalog.errors import AnnotationError, ModelError
from .crops import detection_bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from .data.cropframe import BoxSource

_CHUNK, _CHUNK_BYTES = 256, 64 * 2**20
"""Most crops classified at a time, and about how many bytes of them."""


class CropsOfImages:
    """What a crop model does with images and boxes; see `CropModel`."""

    expand: int
    bands: tuple[int | str, ...] | None

    if TYPE_CHECKING:  # CropModel has them

        @property
        def labels(self) -> tuple[str, ...]: ...
        @property
        def crop_bands(self) -> int: ...
        def classify(self, crops: Any) -> NDArray[np.float32]: ...

    def write_crops(
        self,
        boxes: ArrayLike,
        labels: Sequence[Any],
        image_path: str | Path | Sequence[str | Path] | None = None,
        savedir: str | Path | None = None,
        *,
        images: Sequence[str | Path] | None = None,
        root_dir: str | Path | None = None,
        rescale: Sequence[Any] | None = None,
    ) -> list[Path]:
        """Write the crop of each box to ``savedir/LABEL/``, cut as predictions are cut.

        `geosweep.models.write_crops` with this model's `expand` and `bands`; that says the rest.

        Parameters
        ----------
        boxes, labels, image_path, savedir, root_dir, rescale
            As there.
        images
            DeepForest's name for `image_path`.

        Returns
        -------
        list of Path
            One file for each box.

        Raises
        ------
        AnnotationError, RasterError
            As there.
        """
        from .data.cropfiles import write_crops

        where = images if image_path is None else image_path
        if where is None or savedir is None:
            raise AnnotationError(
                f"write_crops needs {'image_path' if where is None else 'savedir'}: call it as "
                "write_crops(boxes, labels, image_path, savedir)."
            )
        context: dict[str, Any] = {"expand": self.expand, "bands": self.bands}
        return write_crops(
            boxes, labels, where, savedir, root_dir=root_dir, rescale=rescale, **context
        )

    def write_crops_from(
        self,
        source: BoxSource,
        savedir: str | Path,
        *,
        label_column: str = "label",
        per_class: int | Literal["min"] | None = None,
        val_share: float = 0.0,
        min_score: float | None = None,
        seed: int = 0,
        root_dir: str | Path | None = None,
        rescale: Sequence[Any] | None = None,
    ) -> list[Path]:
        """Write the crops of a whole dataset of boxes.

        Parameters
        ----------
        source
            An annotation frame or file, a frame of detections, or the folder of a geosweep output.
        savedir
            Gets one folder for each label; with `val_share`, ``train`` and ``val`` of such folders.
        label_column
            The column with the labels, such as ``cropmodel_label``.
        per_class
            Keep at most so many of each label, drawn at random; ``min``: as many as the rarest has.
        val_share
            Share of each label's crops that goes to ``val``.
        min_score
            Leave out detections with a lower score.
        seed
            Of what is drawn.
        root_dir
            Folder of relative image paths; the frame's own if None.
        rescale
            As in `write_crops`.

        Returns
        -------
        list of Path
            The files, those of ``train`` first.

        Raises
        ------
        AnnotationError
            If the boxes can't be read, lack a label, or there are none.
        RasterError
            If a raster can't be read.
        """
        from .data.cropframe import labelled_boxes, sample_per_class, split_by_class

        frame = labelled_boxes(source, label_column, min_score=min_score, root_dir=root_dir)
        if len(frame) == 0:
            raise AnnotationError("There are no boxes with a label, so there are no crops.")
        frame = frame.iloc[sample_per_class(frame["label"].tolist(), per_class, seed)]
        parts = {Path(savedir): np.arange(len(frame))}
        if val_share:
            rest, held = split_by_class(frame["label"].tolist(), val_share, seed)
            parts = {Path(savedir) / "train": rest, Path(savedir) / "val": held}
        written: list[Path] = []
        for folder, rows in parts.items():
            part = frame.iloc[rows]
            boxes = part[["xmin", "ymin", "xmax", "ymax"]].to_numpy()
            images, labels = part["image_path"].tolist(), part["label"].tolist()
            written += self.write_crops(boxes, labels, images, folder, rescale=rescale)
        return written

    def predict(
        self,
        frame: pd.DataFrame,
        image: str | Path | NDArray[Any] | None = None,
        *,
        name: str = "cropmodel",
        root_dir: str | Path | None = None,
        rescale: Sequence[Any] | None = None,
    ) -> Any:
        """Classify boxes that are there already.

        Parameters
        ----------
        frame
            Columns `xmin`, `ymin`, `xmax`, `ymax` in pixels, and `image_path` unless `image` is given.
        image
            The image of all boxes: a path, or an array (height, width, bands) of uint8 or float32.
        name
            Prefix of the new columns.
        root_dir
            Folder of relative image paths; the frame's own if None.
        rescale
            As in `write_crops`.

        Returns
        -------
        DataFrame
            A copy of the frame, of its own kind, with the columns ``NAME_label`` and ``NAME_score``
            (float32). They are empty in rows that say that an image has no objects. The same as
            `predict_tile` gives for these boxes.

        Raises
        ------
        RasterError
            If an image can't be read.
        ModelError
            If an array is given that does not fit the model.
        """
        from .data.cropframe import image_files
        from .data.cutting import CropRaster
        from .data.frame import boxes_of

        result = frame.copy()
        boxes = boxes_of(frame)
        there = np.isfinite(boxes).all(axis=1) & (boxes != 0).any(axis=1)
        best = np.full(len(frame), -1)
        score = np.full(len(frame), np.nan, np.float32)

        def take(rows: NDArray[np.int64], crops: Iterable[tuple[int, NDArray[Any]]]) -> None:
            for numbers, found in self._in_chunks(crops):
                best[rows[numbers]] = found.argmax(axis=1)
                score[rows[numbers]] = found.max(axis=1)

        rows = np.flatnonzero(there)
        if isinstance(image, np.ndarray):
            take(rows, self._cut_array(image, boxes[rows]))
        elif len(rows):
            files = np.array(
                [str(image)] * len(frame) if image is not None else image_files(frame, root_dir),
                object,
            )
            for file in dict.fromkeys(files[rows]):
                some = rows[files[rows] == file]
                with CropRaster(file, self.bands, rescale) as raster:
                    take(some, raster.crops(boxes[some], self.expand))
        names = np.array([*self.labels, None], object)
        result[f"{name}_label"] = names[best]
        result[f"{name}_score"] = score
        return result

    def predict_folder(self, folder: str | Path, *, name: str = "cropmodel") -> pd.DataFrame:
        """Classify crops on disk, in folders named by their label.

        Returns
        -------
        DataFrame
            ``path``, ``label`` (of the folder), ``NAME_label`` and ``NAME_score``; sorted by path.

        Raises
        ------
        AnnotationError
            If the folder holds no crops, or one that can't be read.
        """
        import pandas as pd

        from .data.cropsets import CropFolder, class_folders

        labels = class_folders(folder)
        data = CropFolder(
            folder, {label: i for i, label in enumerate(labels)}, num_bands=self.crop_bands
        )
        scores = np.zeros((len(data), len(self.labels)), np.float32)
        for numbers, found in self._in_chunks((i, data[i][0]) for i in range(len(data))):
            scores[numbers] = found
        return pd.DataFrame(
            {
                "path": [path for path, _ in data.samples],
                "label": [labels[i] for i in data.targets],
                f"{name}_label": [self.labels[i] for i in scores.argmax(axis=1)],
                f"{name}_score": scores.max(axis=1),
            }
        )

    def _in_chunks(
        self, crops: Iterable[tuple[int, NDArray[Any]]]
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Probabilities of crops as they come, some at a time."""
        numbers: list[int] = []
        some: list[NDArray[Any]] = []
        size = 0
        for number, crop in crops:
            numbers.append(number)
            some.append(crop)
            size += crop.nbytes
            if len(some) == _CHUNK or size > _CHUNK_BYTES:
                yield numbers, self.classify(some)
                numbers, some, size = [], [], 0
        if some:
            yield numbers, self.classify(some)

    def _cut_array(
        self, image: NDArray[Any], boxes: NDArray[np.float64]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        if image.ndim != 3 or image.shape[2] != self.crop_bands:
            raise ModelError(
                f"The image has shape {image.shape}: give (height, width, {self.crop_bands})."
            )
        height, width = image.shape[:2]
        bounds = detection_bounds(boxes, self.expand, width, height)
        for number, (x0, y0, x1, y1) in enumerate(bounds.tolist()):
            yield number, np.ascontiguousarray(image[y0:y1, x0:x1])
