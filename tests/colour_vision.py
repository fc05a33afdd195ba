"""What a colour looks like to a deuteranope, and how far two colours are apart."""

from __future__ import annotations

import numpy as np

# Machado, Oliveira and Fernandes 2009, deuteranopia (severity 1), on linear RGB.
DEUTERANOPIA = np.array([
    [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
])  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def linear(srgb: np.ndarray) -> np.ndarray:
    """Linear RGB of sRGB values in [0, 1], shape (..., 3)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def seen(srgb: np.ndarray) -> np.ndarray:
    """sRGB values as a deuteranope sees them."""
    light = np.clip(linear(srgb) @ DEUTERANOPIA.T, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def lab(srgb: np.ndarray) -> np.ndarray:
    """CIELAB under D65."""
    scaled = linear(srgb) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(scaled > (6 / 29) ** 3, np.cbrt(scaled), scaled / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def rgb(colour: str) -> np.ndarray:
    """sRGB values of six hexadecimal digits."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def distance(one: str, other: str) -> float:
    """CIELAB distance (1976) of two colours as a deuteranope sees them; 10 is plain, 2 just noticeable."""
    return float(np.linalg.norm(lab(seen(rgb(one))) - lab(seen(rgb(other)))))
