"""What a scanner makes of an ideal slice: coil, bias field, blur, Rician noise and the display window."""

from dataclasses import dataclass

import numpy as np
from btkit_plugins.phantom.randomness import Floats, Waves, smoothstep
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Scanner:
    """One scanner and the way its pictures are shown.

    Attributes:
        width: field of view, in mm.
        mirrored: hangs its pictures the other way round.
        blur: standard deviation of the point spread, in mm.
        noise: standard deviation in each of the two receiver channels, as a fraction of bright fat.
        bias, bias_strength: the logarithm of the coil's sensitivity, and its standard deviation.
        coil_end: patient z in mm below which the head coil hears less and less.
        gain, gamma: of the display window; at gain 1 bright fat is just white.
    """

    width: float
    mirrored: bool
    blur: float
    noise: float
    bias: Waves
    bias_strength: float
    coil_end: float
    gain: float
    gamma: float

    def record(self, ideal: Floats, bias: Floats, z: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The picture of an ideal slice.

        Args:
            ideal: tissue tones, 0 black to 1 bright fat, (size, size).
            bias: the bias field at the pixels, (size, size).
            z: patient z of the pixels in mm, (size, size).
            rng: draws the noise.
        """
        size = len(ideal)
        coil = 0.25 + 0.75 * smoothstep(self.coil_end - 50, self.coil_end, z)
        heard = ideal * coil * np.exp(self.bias_strength * bias)
        blurred = ndimage.gaussian_filter(heard, self.blur * size / self.width, truncate=3)
        real, imaginary = rng.standard_normal((2, size, size), dtype=np.float32) * np.float32(self.noise)
        magnitude = np.hypot(blurred + real, imaginary)
        shown = 255 * np.clip(self.gain * magnitude, 0, 1) ** self.gamma
        return np.rint(shown).astype(np.uint8)


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """A scanner; it never depends on the class."""
    return Scanner(
        width=rng.uniform(230, 264),
        mirrored=bool(rng.random() < 0.15),
        blur=rng.uniform(0.35, 0.75),
        noise=float(np.exp(rng.uniform(np.log(0.004), np.log(0.022)))),
        bias=Waves.draw(rng, (180, 420)),
        bias_strength=rng.uniform(0.04, 0.16),
        coil_end=rng.uniform(-115, -85),
        gain=rng.uniform(0.68, 1.05),
        gamma=rng.uniform(0.8, 1.1),
    )
