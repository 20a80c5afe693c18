"""Colours: Lab values, what a photographed cloth's colour is called, and the names that texts use.

Lab is CIE L*a*b* of sRGB under D65: L in 0..100, a and b about -100..100.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_cir.types import Float32

__all__ = ["BASIC_COLOURS", "COLOURS", "HELD_OUT_COLOURS", "NamedColour", "basic_colour", "lab_of_rgb", "rgb_of_lab"]

BASIC_COLOURS = (
    "black",
    "white",
    "grey",
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "beige",
)

_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
_WHITE = np.array([0.9505, 1.0, 1.089], np.float32)
_TO_XYZ = (_XYZ / _WHITE[:, None]).T.copy()
_FROM_XYZ = np.linalg.inv(_TO_XYZ).astype(np.float32)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27


def _linear_table() -> Float32:
    values = np.arange(256, dtype=np.float32) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encoding_table() -> NDArray[np.uint8]:
    values = np.arange(4096, dtype=np.float32) / 4095
    encoded = np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


_LINEAR, _ENCODED = _linear_table(), _encoding_table()


def lab_of_rgb(rgb: NDArray[np.uint8]) -> Float32:
    """Convert sRGB uint8 [..., 3] to Lab float32 [..., 3]."""
    ratios = _LINEAR[rgb] @ _TO_XYZ
    curved = np.where(ratios > _EPSILON, np.cbrt(ratios), (_KAPPA * ratios + 16) / 116)
    x, y, z = curved[..., 0], curved[..., 1], curved[..., 2]
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1).astype(np.float32)


def rgb_of_lab(lab: Float32) -> NDArray[np.uint8]:
    """Convert Lab float32 [..., 3] to sRGB uint8 [..., 3]; what sRGB cannot show is clipped per channel."""
    y = (lab[..., 0] + 16) / 116
    curved = np.stack((y + lab[..., 1] / 500, y, y - lab[..., 2] / 200), axis=-1)
    cubes = curved**3
    ratios = np.where(cubes > _EPSILON, cubes, (116 * curved - 16) / _KAPPA)
    linear = np.clip(ratios @ _FROM_XYZ, 0, 1)
    return _ENCODED[np.round(linear * 4095).astype(np.int32)]


# Lab of cloth as phones photograph it indoors: whites are grey, blacks are not black. Chosen by eye.
_PROTOTYPES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "black": ((10, 0, 0), (18, 0, 0), (24, 1, 1), (16, 1, -4), (20, 3, 2)),
    "white": ((76, 0, 0), (82, 0, 3), (90, 0, 0), (78, 0, -5), (80, 2, 6), (86, 0, 6)),
    "grey": ((36, 0, 0), (46, 0, 0), (56, 0, 0), (64, 0, 0), (45, -1, -5), (58, 0, -5), (50, 2, 3), (64, 1, 4)),
    "red": ((32, 42, 22), (40, 52, 32), (27, 33, 15), (48, 60, 40), (24, 26, 9)),
    "orange": ((60, 40, 52), (66, 32, 58), (54, 45, 48), (68, 36, 40)),
    "yellow": ((74, 6, 60), (80, 0, 50), (70, 10, 54), (84, -4, 34), (66, 4, 44)),
    "green": (
        *((45, -35, 22), (35, -20, 12), (60, -32, 34), (29, -11, 8), (70, -28, 18), (42, -8, 19)),
        *((55, -38, 8), (50, -14, 26), (32, -5, 13), (75, -22, 30), (62, -16, 6)),
    ),
    "blue": (
        *((35, 5, -35), (25, 5, -22), (18, 3, -14), (45, 0, -36), (60, -8, -25), (70, -8, -16), (48, -18, -20)),
        *((36, 18, -50), (42, -2, -15), (30, 1, -13), (55, -3, -15), (65, -20, -12), (28, 12, -34)),
    ),
    "purple": ((35, 30, -30), (25, 20, -16), (55, 22, -24), (45, 40, -25), (70, 14, -15), (30, 28, -10), (42, 20, -16)),
    "pink": ((70, 30, 5), (58, 45, 0), (76, 18, 5), (82, 12, 4), (52, 56, 5), (66, 34, 14), (62, 22, 6), (48, 48, -4)),
    "brown": ((34, 14, 18), (28, 9, 11), (42, 18, 26), (49, 17, 28), (22, 7, 7), (40, 9, 14)),
    "beige": ((70, 5, 18), (78, 4, 15), (60, 5, 18), (72, 9, 15), (64, 4, 12), (56, 4, 14), (84, 3, 15)),
}
_PROTOTYPE_NAMES = tuple(name for name, values in _PROTOTYPES.items() for _ in values)
_PROTOTYPE_LABS = np.array([value for values in _PROTOTYPES.values() for value in values], np.float32)
_AXIS_WEIGHTS = np.array([0.6, 1.0, 1.0], np.float32)
"""Light changes more between photographs than hue does."""


@dataclass(frozen=True, slots=True)
class BasicColour:
    """What a cloth's colour is called.

    Attributes:
        name: one of ``BASIC_COLOURS``.
        margin: how much farther the nearest colour of another name is, in Lab units; small where the name is a guess.
    """

    name: str
    margin: float


def basic_colour(lab: Float32) -> BasicColour:
    """Name the colour of a photographed cloth from its median Lab [3]."""
    distances = np.linalg.norm((_PROTOTYPE_LABS - lab) * _AXIS_WEIGHTS, axis=1)
    nearest = {name: float("inf") for name in BASIC_COLOURS}
    for name, distance in zip(_PROTOTYPE_NAMES, distances.tolist(), strict=True):
        nearest[name] = min(nearest[name], distance)
    first, second = sorted(nearest, key=lambda name: nearest[name])[:2]
    return BasicColour(first, nearest[second] - nearest[first])


@dataclass(frozen=True, slots=True)
class NamedColour:
    """A colour that a text may ask for.

    Attributes:
        name: as it is written in a text.
        basic: the name among ``BASIC_COLOURS`` that it falls under.
        rgb: sRGB, 0..255 each.
    """

    name: str
    basic: str
    rgb: tuple[int, int, int]

    @property
    def lab(self) -> Float32:
        """Lab float32 [3]."""
        return lab_of_rgb(np.array(self.rgb, np.uint8))


_NAMED: dict[str, str] = {
    "black": "black 17171a, jet black 0c0c0e, off black 212024, charcoal black 262629, ink black 14161c, onyx 1b1b1d, "
    "ebony 22201e, raven 191a20",
    "white": "white efefec, snow white f6f7f8, off white ebe7dc, bright white f8f8f8, pearl white e9e6de, "
    "milk white f1ede2, chalk white e6e6e2, pearl e4e0d6, snow f3f5f6",
    "grey": "grey 85868a, gray 85868a, light grey b4b5b8, dark grey 4b4c50, charcoal 3d3e42, slate 5d6670, "
    "silver b9bcc0, ash grey a1a39e, stone grey 8f8c85, steel grey 6d747b, graphite 46484c, smoke 94959a, "
    "gunmetal 4d5258, pale grey c4c5c8, ash a5a6a3, slate grey 66707a, pewter 8b8d8f, "
    "heather grey 9b9ca1, anthracite 383b40",
    "red": "red c02128, dark red 861a20, bright red dc1f2b, crimson a9152f, scarlet cf2418, burgundy 6a1a2b, "
    "maroon 641b22, wine 6b1f33, cherry b01a35, ruby 9d1a3c, brick red 97392f, tomato d8452f, blood red 7d1014, "
    "rust red 8f3522, wine red 6f1a30, cherry red b51b34, cranberry 94213b, deep red 96141f, oxblood 561a1e, "
    "raspberry a92552, garnet 70202a, vermilion d63a1e, berry 8a2147",
    "orange": "orange e2761b, dark orange c65d12, bright orange f27c12, light orange f0a35c, burnt orange b8531c, "
    "tangerine ee8320, apricot f0ab6e, peach f4b793, pumpkin d56a1f, coral ec7459, amber d9921e, rust a44a20, "
    "terracotta b65a3c, copper ae6a3c, salmon ee8a72, melon f2a280, carrot e37b2c, pale orange f3bf8f",
    "yellow": "yellow ecc931, bright yellow f6d51f, light yellow f3e38f, dark yellow c9a227, mustard c4982b, "
    "gold cba03a, lemon f0df52, canary f2da3d, pale yellow f2e8ad, mustard yellow c79d24, golden d2a53a, "
    "sunflower e9bb2a, saffron dfa528, maize ecd06a, butter f2e3a2, ochre bd8a32, honey d3a03f, banana f0dc7c",
    "green": "green 2f8a45, dark green 1f4d32, light green 93c58d, bright green 35b24c, olive 6b6a33, "
    "olive green 6a6c34, forest green 24532f, emerald 188a5c, mint a9dac0, lime 9cc93a, khaki green 7a7a4d, "
    "sage 97a88a, army green 535936, moss 69733c, teal green 1f7468, pale green b5d6ac, "
    "bottle green 1c4636, mint green a4dbbf, "
    "lime green 8fcb35, hunter green 2a5238, jade 3a9a76, sea green 3f9277, apple green 8ab54a, "
    "fern 5d8c4e, pistachio b3c98b, deep green 17503a, grass green 4f9440, neon green 7be83c, forest 27502f, "
    "pine 26503f, sage green 98a98c, avocado 70803f, basil 5a7a4c",
    "blue": "blue 2b5fb0, dark blue 1e2f5e, light blue 8fb8de, navy 1f2a48, navy blue 1f2b4c, royal blue 2a4cb4, "
    "sky blue 7fbbe6, baby blue a8cfea, teal 1f7680, turquoise 35b0b0, cobalt 2548a0, denim 48658c, "
    "denim blue 4a6890, indigo 2f3672, aqua 5cc3cc, cyan 30b4d0, powder blue aac6dc, bright blue 1f6fe0, "
    "pale blue b2cfe4, midnight blue 1a2140, electric blue 1f5fe8, ice blue c0dcea, steel blue 4f7596, "
    "deep blue 1d3e86, petrol 1d4f5e, ocean blue 2a6b9a, cobalt blue 2449a4, azure 3f8fd8, slate blue 566f96, "
    "sapphire 1f4a94, aquamarine 6fcfc0, cornflower 6b92d8, ocean 2d6d94, midnight 1c2340, neon blue 2f7dff",
    "purple": "purple 6d3a93, dark purple 44265c, light purple ab8cc8, violet 7a4bb0, lavender b4a3d6, lilac c0a4d2, "
    "plum 6b2f5c, mauve a3829c, aubergine 43243f, eggplant 46284a, grape 5d3474, magenta b02a84, amethyst 8d63b4, "
    "bright purple 8636c4, pale purple c6b4da, deep purple 4d2574, orchid b36cba, royal purple 5a2e92, "
    "mulberry 7c2f60, heather 9a86a8",
    "pink": "pink e58fab, light pink f2bccb, dark pink c44f7c, hot pink e63d8c, bright pink ee4b93, pale pink f2cdd4, "
    "baby pink f4c3cf, rose d9647f, fuchsia cc2f87, blush e8bdb6, dusty pink cf9a9d, bubblegum ee86b4, "
    "coral pink ef8b86, rose pink df7692, dusty rose bf8288, flamingo f08c94, neon pink ff4fa6, salmon pink f0958c, "
    "powder pink efc9cd, peony e0759c, pastel pink f3c6d2, deep pink c93a74, carnation f0a3b4",
    "brown": "brown 6f4a32, dark brown 46301f, light brown a47a54, chocolate 52331f, coffee 5b4230, tan b98f63, "
    "camel b68a55, chestnut 6f3f2b, caramel a9703b, mocha 6c5242, cinnamon 94562f, walnut 5d4432, bronze 84622f, "
    "hazel 84643f, cocoa 634735, espresso 3a2a21, toffee 8a5a35, reddish brown 753c2b, cognac 8f5129, mahogany 56271f, "
    "umber 5e4631, sepia 6a4c34, chocolate brown 50341f, hickory 5f4636",
    "beige": "beige d2c1a3, cream ece2c8, ivory eee8d6, khaki a89a72, sand cdb58c, taupe 948574, nude ddbfa5, "
    "oatmeal d6c9b1, ecru dfd5bb, champagne e3d0ad, light beige e1d5be, dark beige b6a381, stone b7ad99, "
    "vanilla eee0bb, wheat ddc795, biscuit d2b48c, linen e2d8c4, mushroom b3a393, bone e0d8c6, "
    "latte bfa283, almond dcc6a8",
}


def _named_colours() -> tuple[NamedColour, ...]:
    found = []
    for basic, listed in _NAMED.items():
        for entry in listed.split(", "):
            name, _, value = entry.rpartition(" ")
            red, green, blue = bytes.fromhex(value)
            found.append(NamedColour(name, basic, (red, green, blue)))
    return tuple(found)


COLOURS = _named_colours()
"""Names of colours with their values; those of ``HELD_OUT_COLOURS`` are never in a training text."""

HELD_OUT_COLOURS = frozenset(
    {"raven", "pewter", "garnet", "melon", "maize", "basil", "sapphire", "mulberry", "hickory"}
)
"""Words that training never names, to measure what an unknown word does."""
