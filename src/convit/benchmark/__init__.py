"""Speed and memory of ConViT beside its plain-attention twin, timm's ConViT and timm's DeiT, in one interleaved run."""

from convit.benchmark.cases import PRESETS, Case, Preset, grid_of_cases
from convit.benchmark.machine import Facts, machine_facts
from convit.benchmark.memory import check_memory_is_measurable
from convit.benchmark.report import Measured, Report, Result, Spread, spread
from convit.benchmark.steps import Step, forward_step, training_step
from convit.benchmark.table import table
from convit.benchmark.timing import interleaved, measure
from convit.choices import RIVALS, Mode, Precision, PresetName, Rival

__all__ = [
    "PRESETS",
    "RIVALS",
    "Case",
    "Facts",
    "Measured",
    "Mode",
    "Precision",
    "Preset",
    "PresetName",
    "Report",
    "Result",
    "Rival",
    "Spread",
    "Step",
    "check_memory_is_measurable",
    "forward_step",
    "grid_of_cases",
    "interleaved",
    "machine_facts",
    "measure",
    "spread",
    "table",
    "training_step",
]
