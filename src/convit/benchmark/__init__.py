"""Speed and memory of ConViT beside its plain-attention twin, timm's ConViT and timm's DeiT, in one interleaved run."""
