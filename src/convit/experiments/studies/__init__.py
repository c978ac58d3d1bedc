"""The experiments by name, a file each. Figures of the paper, which stand beside ours, are in percent of ImageNet-1k's
validation images (arXiv 2103.10697, v2)."""

from convit.experiments.studies import (
    ablation,
    design,
    distillation,
    dynamics,
    locality,
    masking,
    models,
    sample_efficiency,
    small_data,
)
from convit.experiments.study import Study

STUDIES: dict[str, Study] = {
    "sample-efficiency": sample_efficiency.STUDY,
    "ablation": ablation.STUDY,
    "locality": locality.STUDY,
    "masking": masking.STUDY,
    "dynamics": dynamics.STUDY,
    "distillation": distillation.STUDY,
    "models": models.STUDY,
    "design": design.STUDY,
    "small-data": small_data.STUDY,
}
