"""The edge between callers' arrays and the float64 NumPy inside.

Estimators compute in float64 on the CPU whatever the host, so that every rank and device gets the same bytes
(some accelerators have no float64); a result goes back in the caller's dtype and on its device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.errors import InputError


class Host(NamedTuple):
    """Where an array came from: the torch device (None for NumPy) and the floating dtype to give back."""

    device: Any
    dtype: Any

    def restore(self, values: NDArray[np.float64]) -> Any:
        """`values` in the caller's library, dtype and device."""
        if self.device is None:
            largest = float(np.finfo(self.dtype).max)
        else:
            import torch  # already imported by whoever passed a tensor

            largest = torch.finfo(self.dtype).max
        if values.size and float(np.max(np.abs(values))) > largest:
            raise InputError(
                f"a result of {np.max(np.abs(values)):.3g} does not fit {self.dtype}: pass float32 or wider"
            )
        if self.device is None:
            return values.astype(self.dtype)
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)


def is_torch(x: object) -> bool:
    """Whether `x` is a torch tensor, without importing torch."""
    return type(x).__module__.split(".")[0] == "torch" and hasattr(x, "detach")


def to_float64(name: str, x: Any) -> tuple[NDArray[np.float64], Host]:
    """`x` (NumPy, torch, nested lists) as a new float64 array, and its host.

    Integers and booleans come back as the host's default float. Raises InputError for anything non-numeric.
    """
    if is_torch(x):
        import torch

        if x.is_complex() or x.is_nested or x.layout is not torch.strided or x.device.type == "meta":
            kind = "nested" if x.is_nested else f"{x.dtype} {x.layout} on {x.device}"
            raise InputError(f"{name} must be a plain dense tensor of real numbers, got {kind}")
        dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
        return x.detach().to(device="cpu", dtype=torch.float64).numpy().copy(), Host(x.device, dtype)
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array, whose mask would be lost: pass its data, and mask=~rewards.mask")
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InputError(
            f"{name} must be a rectangular array of numbers: {error}; pass ragged groups with group_ids"
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} must be numeric, got dtype {array.dtype}: convert text or objects to numbers first")
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return array.astype(np.float64), Host(None, dtype)


def to_bool(name: str, x: Any) -> NDArray[np.bool_]:
    """`x` as a boolean array; 0/1 numbers are accepted, anything else refused."""
    values, _ = to_float64(name, x)
    if not np.all((values == 0) | (values == 1)):
        raise InputError(f"{name} must hold only booleans or 0 and 1, got other numbers")
    return values.astype(bool)


def to_labels(name: str, labels: Any) -> tuple[Any, ...] | None:
    """Labels, numbers or text, as a tuple; None for none. Raises InputError for NaN and for more than one axis."""
    if labels is None:
        return None
    if is_torch(labels):
        labels = labels.detach().cpu().numpy()
    if isinstance(labels, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array, whose mask would be lost: pass its data, and mask=")
    if isinstance(labels, list | tuple) and set(map(type, labels)) <= {str, int}:
        return tuple(labels)
    if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iub":
        return tuple(labels.tolist())
    if isinstance(labels, list | tuple):  # as they are: an array would round large whole numbers beside floats
        found = tuple(x.item() if hasattr(x, "item") and getattr(x, "ndim", 1) == 0 else x for x in labels)
    else:
        array = np.asarray(labels)
        if array.ndim != 1:
            raise InputError(f"{name} must be one-dimensional, got shape {array.shape}")
        found = tuple(array.tolist())
    try:
        if any(x != x for x in set(found)):
            raise InputError(f"{name} hold NaN, which equals nothing, not even itself: use whole numbers or text")
    except (TypeError, ValueError) as error:
        shape = "ragged" if isinstance(error, ValueError) else (len(found), *np.shape(found[0]))
        raise InputError(f"{name} must be one-dimensional, got shape {shape}: numbers or text, one each") from error
    return found
