"""The authors' weights of the paper's models, on the Hugging Face Hub. Without PyTorch, so that a missing network is
named at once."""

from pathlib import Path

import huggingface_hub

from convit.errors import InputError
from convit.hub import fetch, hub_faults
from convit.models.sizes import PUBLISHED, check_name, model_name

WEIGHTS_FILE = "model.safetensors"
REPOSITORIES = {model_name(size, 16, 224): f"timm/{name}" for size, name in PUBLISHED.items()}
"""By model."""


def fetch_published(name: str, cache_dir: str | Path | None = None) -> Path:
    """The file of a model's published weights, downloaded if need be.

    Raises:
        InputError: no such model, none published for it, or no network; then it says which file to fetch elsewhere, and
            who takes it.
    """
    check_name(name)
    if name not in REPOSITORIES:
        raise InputError(f"pretrained: no weights are published for {name}; expected one of {', '.join(REPOSITORIES)}")
    repository = REPOSITORIES[name]
    instead = (
        f"https://huggingface.co/{repository}/resolve/main/{WEIGHTS_FILE} from elsewhere, and --weights FILE --model "
        f"{name} in place of --pretrained (in Python checkpoint_path=FILE)"
    )
    cached = huggingface_hub.try_to_load_from_cache(repository, WEIGHTS_FILE, cache_dir=cache_dir)
    if isinstance(cached, str):  # they have not changed since they were published
        return Path(cached)
    with hub_faults(f"pretrained: could not fetch {repository} from the Hugging Face Hub", instead):
        return fetch(repository, WEIGHTS_FILE, cache_dir=cache_dir)
