"""Layers: the three attentions of the paper, and the block that holds one of them."""

from convit.layers.attention import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.layers.block import Block

__all__ = ["Block", "GatedPositionalSelfAttention", "PositionalSelfAttention", "SelfAttention"]
