"""What a trained model attends to: maps of one real forward pass, metrics of them, and attention switched off.

- ``inspect``: all of it for one picture.
- ``capture``: maps, gates, attention centres and hidden states of one forward pass.
- ``summary``: maps and metrics of every layer, averaged over many images.
- ``attention_record``: the attention metrics that a run records after each epoch.
- ``plots``: plots of all these, imported when used.
- ``metrics``: non-locality, attention centres, spans, entropy, diversity of heads, rollout, relevance.
- ``masking``: position embeddings, content or position off, gates set by hand (tables 5 and 6 of the paper).
"""

from convit.analysis.attention_layers import gates, position_weights
from convit.analysis.capture import Capture, LayerCapture, average, capture
from convit.analysis.history import attention_record
from convit.analysis.inspection import Inspection, MaskedPrediction, inspect
from convit.analysis.masking import gates_set, masked, without_position_embedding
from convit.analysis.metrics import (
    centres,
    entropy,
    head_diversity,
    non_locality,
    picture,
    relevance_rollout,
    rollout,
    spans,
)
from convit.analysis.relevance import relevance
from convit.analysis.summary import LayerSummary, summary

__all__ = [
    "Capture",
    "Inspection",
    "LayerCapture",
    "LayerSummary",
    "MaskedPrediction",
    "attention_record",
    "average",
    "capture",
    "centres",
    "entropy",
    "gates",
    "gates_set",
    "head_diversity",
    "inspect",
    "masked",
    "non_locality",
    "picture",
    "position_weights",
    "relevance",
    "relevance_rollout",
    "rollout",
    "spans",
    "summary",
    "without_position_embedding",
]
