"""What is measured: a model of ours at one size, batch, type and mode, and the models that stand beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

from convit.choices import RIVALS, Mode, Precision, PresetName, Rival
from convit.errors import InputError
from convit.models.sizes import GEOMETRIES, check_name, model_name
from convit.models.stem import patch_grid

TIMM_NAMES: dict[str, dict[str, str]] = {
    "timm": {size: f"convit_{size}" for size in ("tiny", "small", "base")},
    "deit": {size: f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")},
}
"""timm's models by our size; at other patches and images than 224 px they are made with ours."""

_SHAPES = {model_name(size, *shape): (size, *shape) for size, shapes in GEOMETRIES.items() for shape in shapes}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing to measure.

    Raises:
        InputError: an unknown model, a size that its patch does not divide, a number that is not positive.

    Example:
        >>> case = Case(model="convit_tiny_patch16_224", image_size=448, batch_size=4, mode="train")
        >>> case.title
        'convit_tiny_patch16_224, 448 px, batch 4, training step, fp32, eager'
        >>> case.contestants(RIVALS)
        ['convit', 'twin', 'timm', 'deit']
    """

    model: str
    """One of ours, by name."""
    image_size: int
    """Side of the square image in pixels."""
    batch_size: int
    mode: Mode = "forward"
    precision: Precision = "fp32"
    """Of the matrix products, by autocast; weights stay fp32."""
    compiled: bool = False
    """By ``torch.compile``."""
    timed: bool = True
    memory: bool = False
    """Whether peak memory is measured."""
    patch: int | None = None
    """Side of a patch in pixels, where it is not the model's own."""
    num_classes: int = 1000
    model_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of :class:`convit.ConViT` in place of the name's own, for the model and its twin."""

    def __post_init__(self) -> None:
        check_name(self.model)
        if self.batch_size < 1:
            raise InputError(f"batch-size: got {self.batch_size}, expected at least 1")
        try:
            patch_grid(self.image_size, self.image_size, self.patch_size)
        except ValueError as error:
            raise InputError(f"{str(error).replace('image size', 'image-size', 1)} ({self.model})") from None

    @property
    def size(self) -> str:
        """The model's size: ``tiny``."""
        return _SHAPES[self.model][0]

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch or _SHAPES[self.model][1]

    @property
    def step(self) -> str:
        """What a step is, in words."""
        return "forward" if self.mode == "forward" else "training step"

    @property
    def how(self) -> str:
        """How it runs, in a word."""
        return "compiled" if self.compiled else "eager"

    @property
    def title(self) -> str:
        """The case in words."""
        what = f"{self.model}, {self.image_size} px, batch {self.batch_size}"
        return f"{what}, {self.step}, {self.precision}, {self.how}"

    def contestants(self, rivals: Sequence[Rival]) -> list[str]:
        """``convit``, then those of the rivals that its size has: timm knows tiny, small and base."""
        return ["convit", *(r for r in RIVALS if r in rivals and (r == "twin" or self.size in TIMM_NAMES[r]))]

    def label(self, who: str) -> str:
        """How a contestant is called in a table."""
        if who in TIMM_NAMES:
            return f"timm {TIMM_NAMES[who][self.size].removesuffix('_patch16_224')}"
        return {"convit": "convit", "twin": "plain twin", "onnx": "exported file"}[who]


def grid_of_cases(
    *,
    models: Sequence[str] = ("convit_tiny_patch16_224",),
    image_sizes: Sequence[int] = (),
    batch_sizes: Sequence[int] = (16,),
    modes: Sequence[Mode] = ("forward", "train"),
    precisions: Sequence[Precision] = ("fp32",),
    compiled: bool = False,
    patch: int | None = None,
    num_classes: int = 1000,
) -> tuple[Case, ...]:
    """Every combination, each once; without ``image_sizes`` each model's own, with ``compiled`` eager and compiled.

    >>> [case.title for case in grid_of_cases(batch_sizes=[1], modes=["forward"])]
    ['convit_tiny_patch16_224, 224 px, batch 1, forward, fp32, eager']
    """
    hows = (False, True) if compiled else (False,)
    cases = (  # of an unknown model any image size: the case refuses it
        Case(
            model=m,
            image_size=s,
            batch_size=b,
            mode=mode,
            precision=p,
            compiled=how,
            patch=patch,
            num_classes=num_classes,
        )
        for m in models
        for s, b, p, mode, how in product(
            image_sizes or [_SHAPES[m][2] if m in _SHAPES else 0], batch_sizes, precisions, modes, hows
        )
    )
    return tuple(dict.fromkeys(cases))


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A list of cases that is worth a name."""

    device: Literal["cpu", "cuda"]
    cases: tuple[Case, ...]


_TINY = ("convit_tiny_patch16_224",)
_SIX = tuple(
    case
    for size, batch in ((224, 16), (224, 1), (448, 4))
    for case in grid_of_cases(models=_TINY, image_sizes=[size], batch_sizes=[batch])
)
_MEMORY = Case(model=_TINY[0], image_size=896, batch_size=1, mode="train", timed=False, memory=True)
_ON_GPU = (
    *grid_of_cases(
        models=[model_name(size, 16, 224) for size in ("tiny", "small", "base")],
        batch_sizes=[128],  # the paper's
        precisions=["bf16"],
        compiled=True,
    ),
    *grid_of_cases(models=_TINY, image_sizes=[448], batch_sizes=[32], precisions=["bf16"], compiled=True),
)

PRESETS: dict[PresetName, Preset] = {
    "cpu": Preset(device="cpu", cases=_SIX),
    "paper": Preset(device="cpu", cases=(*_SIX, _MEMORY)),
    "cuda": Preset(device="cuda", cases=tuple(replace(case, memory=case.mode == "train") for case in _ON_GPU)),
}
"""``cpu``: the tiny model at 224 px, batches of 16 and 1, and at 448 px, batch 4, forward and training step, fp32.
``paper``: the same, and the peak memory of a training step at 896 px, batch 1. ``cuda``: tiny, small and base at
224 px, batch 128, tiny at 448 px, batch 32, forward and training step with its memory, bf16, eager and compiled."""
