"""What runs on the cluster for a submitted job: ``python -m geosweep.pipeline.submitted FILE``.

It is ``geosweep run`` on the cluster it finds itself on, with a log that is read by people and, from
afar, by `submission`.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from ..catalog.errors import ClusterError, GeosweepError
from ._bundle import INTERRUPTED, REPORT, SAID, read_bundle
from ._signals import terminate_as_interrupt
from ._wheel import content_hash, geosweep_version

log = logging.getLogger("geosweep")


def main(file: str) -> int:
    """Run the job in `file`; returns the exit code."""
    # Plain lines: Rich would fold them at 80 columns, and progress is read from them.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        return _run(Path(file))
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        _say(
            f"the cluster's image has no package {package!r}; build the image with geosweep's "
            "dependencies, or ship your own module with --py-module."
        )
        return ClusterError.exit_code


def _run(file: Path) -> int:
    from ._console import out
    from ._tables import result_table
    from .runner import run

    log.info("geosweep %s (%s) at %s", geosweep_version(), content_hash(), Path(__file__).parent)
    terminate_as_interrupt()
    try:
        job, options = read_bundle(file)
        result = run(job, engine="ray", address="auto", **options)
    except GeosweepError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("stopped; what is finished is kept, the same job goes on.")
        return INTERRUPTED
    out.print(result_table(result))
    for failure in result.failures:
        sys.stderr.write(f"failed: {failure.scene_id}: {failure.error}\n")
    sys.stdout.write(f"{REPORT}{json.dumps(result.report())}\n")
    return result.exit_code


def _say(sentence: str) -> None:
    sys.stderr.write(f"{SAID}{sentence}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
