"""Engines that compute a network's convolutions: OpenVINO, ONNX Runtime, torch.compile.

Each is made for one shape of input at a time, which is what they are fast with. A call computes in one
thread, so that N threads make N calls side by side and a result depends neither on how many there are
nor on what else is computed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections import OrderedDict
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import torch

from ...catalog.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

Backend = Literal["torch", "compile", "onnx", "openvino"]
BACKENDS: tuple[str, ...] = get_args(Backend)
OPSET = 18
_PACKAGES = {"onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}
# Programs kept, one for each shape: a sweep has one, odd-sized images a few.
_SHAPES = 8
_log = logging.getLogger("geosweep")


class Build(Protocol):
    """Makes a program for inputs of one shape."""

    def __call__(
        self, network: nn.Module, example: Tensor, *, precision: str, threads: int
    ) -> Callable[[Tensor], tuple[Tensor, ...]]: ...


def check_backend(backend: str, device: str, precision: str, name: str) -> None:
    """Refuse what can't be.

    Raises
    ------
    ModelError
        If there is no such backend, its packages are missing, or it does not run on the device or in
        the precision.
    """
    if backend not in BACKENDS:
        raise ModelError(f"backend is {backend!r}: choose one of {', '.join(BACKENDS)}.")
    for package in _PACKAGES.get(backend, ()):
        try:
            import_module(package)
        except ImportError as error:
            raise ModelError(
                f"the backend {backend} needs the package {package}, which is not installed; "
                "run: pip install 'geosweep[export]'"
            ) from error
    if backend in _PACKAGES and not device.startswith("cpu"):
        raise ModelError(
            f"{name}: the backend {backend} runs on a CPU, and the device is {device}; use the "
            "backend torch or compile there."
        )
    computed = {"onnx": ("auto", "fp32"), "openvino": ("auto", "fp32", "bf16")}.get(backend)
    if computed and precision not in computed:
        raise ModelError(
            f"{name}: the precision is {precision}, but the backend {backend} computes in "
            f"{' or '.join(computed[1:])}; choose one of these."
        )
    if backend == "openvino" and precision == "bf16":
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError(f"{name}: this CPU has no bf16 instructions; use precision fp32.")


class Engine:
    """A network as programs, one for each shape of input.

    Parameters
    ----------
    network
        Maps (B, 3, H, W) to a tuple of tensors.
    backend
        ``openvino``, ``onnx`` or ``compile``.
    precision
        ``auto`` and ``fp32``: as torch up to rounding; ``bf16`` on CPUs that have it, by OpenVINO.
    threads
        Most calls at a time.
    """

    def __init__(
        self, network: nn.Module, backend: str, *, precision: str = "auto", threads: int = 1
    ) -> None:
        self._network = network
        self._build: Build = _BUILDERS[backend]
        self._backend, self._precision, self._threads = backend, precision, threads
        self._programs: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the network."""
        return self._program(images)(images)

    def _program(self, images: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
        shape = tuple(images.shape)
        with self._lock:
            if shape not in self._programs:
                start = time.perf_counter()
                with quietly():
                    self._programs[shape] = self._build(
                        self._network,
                        # Not images itself: it is an inference tensor, which tracing refuses.
                        torch.zeros(shape, device=images.device),
                        precision=self._precision,
                        threads=self._threads,
                    )
                _log.info(
                    "%s made ready for %s pixels in %.1f s",
                    self._backend,
                    "×".join(map(str, shape[2:])),
                    time.perf_counter() - start,
                )
            self._programs.move_to_end(shape)
            while len(self._programs) > _SHAPES:
                self._programs.popitem(last=False)
            return self._programs[shape]


def _openvino(network: nn.Module, example: Tensor, *, precision: str, threads: int) -> Any:
    import openvino

    traced = openvino.convert_model(network, example_input=example, input=list(example.shape))
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,  # one thread each
        "ENABLE_CPU_PINNING": False,  # several processes would pin the same cores
    }
    compiled = openvino.Core().compile_model(traced, "CPU", settings)
    own = threading.local()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer([images.numpy()], share_inputs=True)
        return tuple(torch.from_numpy(found[i].copy()) for i in range(len(compiled.outputs)))

    return run


def _onnx(network: nn.Module, example: Tensor, *, precision: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx_bytes(network, example), options, providers=["CPUExecutionProvider"]
    )
    (first,) = session.get_inputs()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        found = session.run(None, {first.name: np.ascontiguousarray(images.numpy())})
        return tuple(torch.from_numpy(np.asarray(level)) for level in found)

    return run


def _compiled(network: nn.Module, example: Tensor, *, precision: str, threads: int) -> Any:
    program: Any = torch.compile(network, dynamic=False)
    with torch.inference_mode():
        try:
            program(example)
        except Exception as error:  # a compiler's own errors, of many kinds
            raise ModelError(
                "the backend compile can't build its kernels "
                f"({str(error).strip().splitlines()[0][:200]}); use the backend torch."
            ) from error
    return program


_BUILDERS: dict[str, Build] = {"openvino": _openvino, "onnx": _onnx, "compile": _compiled}


def onnx_bytes(network: nn.Module, example: Tensor, **names: Any) -> bytes:
    """Return a network as a serialised ONNX model for the example's shape."""
    with quietly():
        program: Any = torch.onnx.export(
            network.eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False, **names
        )
    content = BytesIO()
    program.save(content)
    return content.getvalue()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hold back the exporters' warnings, which are about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
