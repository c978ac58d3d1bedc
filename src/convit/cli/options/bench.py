"""What ``convit bench`` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from convit.choices import RIVALS, Device, Mode, Precision, PresetName, Rival
from convit.cli.options import Command, JsonTarget
from convit.errors import InputError
from convit.options import Arg, Count


@dataclass(frozen=True, kw_only=True)
class BenchCommand(Command):
    """Measure speed and memory beside other models."""

    models: Annotated[tuple[str, ...], Arg("MODEL", positional=True)] = ()
    """Names from 'convit models' [convit_tiny_patch16_224]."""
    preset: PresetName | None = None
    """Cases: 'cpu', tiny at 224 and 448 px; 'paper', and memory at 896 px; 'cuda', three sizes in bf16. Or 'data':
    decoding, augmenting and a step of mini at 128 px, alone and together, and what waits for what."""
    data: str | None = None
    """Images for --preset data: DATA as of 'convit train' [photos of 12 megapixels, made for it]."""
    image_size: tuple[Count, ...] = ()
    """Sides of the square image in pixels [the model's own]."""
    batch_size: tuple[Count, ...] = ()
    """Images per step [16]."""
    mode: tuple[Mode, ...] = ()
    """What to measure: forward, train (a step: forward, backward, AdamW) [both]."""
    precision: tuple[Precision, ...] = ()
    """Types of the matrix products [fp32]."""
    compile: bool = False
    """Measure after torch.compile too, beside eager."""
    memory: bool = False
    """Measure the peak memory of a step too, in a process of its own for each."""
    against: tuple[Rival, ...] = RIVALS
    """What stands beside it: its plain-attention twin, timm's ConViT, timm's DeiT; nothing after it for none [all]."""
    onnx: Annotated[Path | None, Arg("FILE.onnx")] = None
    """A file of 'convit export', forward on onnxruntime, beside the same model in PyTorch."""
    rounds: Count | None = None
    """Rounds of each case, in which every model runs once [as many as fit in half a minute, 7 to 200]."""
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """CPU threads [PyTorch's own choice]."""
    device: Device = "auto"
    """Where to compute [a GPU if there is one; with --preset the preset's, with --onnx the CPU]."""
    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""

    def look_ahead(self) -> None:
        """The models and the exported file."""
        from convit.models.sizes import check_name

        if self.data is not None and self.preset != "data":
            raise InputError(f"data: got {self.data} without --preset data, expected both")
        for name in self.models:
            check_name(name)
        if self.onnx is not None:
            from convit_onnx import check_file

            check_file(self.onnx)
