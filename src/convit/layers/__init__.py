"""Layers: the three attentions of the paper, the block that holds one of them, and its norm."""

from convit.layers.attention import (
    AttentionBase,
    GatedPositionalSelfAttention,
    PositionalBase,
    PositionalSelfAttention,
    SelfAttention,
)
from convit.layers.block import Block
from convit.layers.norm import TokenBatchNorm

__all__ = [
    "AttentionBase",
    "Block",
    "GatedPositionalSelfAttention",
    "PositionalBase",
    "PositionalSelfAttention",
    "SelfAttention",
    "TokenBatchNorm",
]
