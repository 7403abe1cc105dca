"""The one family of errors that geosweep raises on purpose.

Each message is one sentence that names the file or key, the value and the remedy: the CLI prints
it as it is and exits with `exit_code`, without a traceback. They live in `catalog/` because that is
the lightest folder, which all others may import.
"""


class GeosweepError(Exception):
    """Base of every error that geosweep raises on purpose."""

    exit_code = 2


class JobError(GeosweepError):
    """The job file or an argument is wrong."""


class SourceError(GeosweepError):
    """A source of scenes (STAC file, raster list) can't be read or understood."""


class RasterError(GeosweepError):
    """A raster can't be opened, decoded or interpreted."""


class ModelError(GeosweepError):
    """A detector or crop model can't be found, read or matched to its architecture."""


class AnnotationError(GeosweepError):
    """Labelled data (boxes, points, crops) can't be read, or does not fit its images."""


class TrainingError(GeosweepError):
    """A training configuration is wrong, or training can't go on."""


class DeviceMemoryError(GeosweepError):
    """A model has no room in the memory of its device, even for one window or crop at a time."""


class OutputError(GeosweepError):
    """The output can't be written, or belongs to another job."""


class StorageError(OutputError):
    """The storage behind the output can't be reached."""

    exit_code = 3


class ClusterError(GeosweepError):
    """The Ray cluster can't be reached, or lost its actors for good."""

    exit_code = 3
