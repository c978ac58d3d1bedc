"""``convit models``: what there is to choose from."""

from dataclasses import asdict

from rich.table import Table

from convit.cli.console import Console
from convit.cli.options.models import ModelsCommand
from convit.cli.output import print_or_write_json
from convit.models.sizes import ModelFacts, model_facts


def main(options: ModelsCommand) -> None:
    """Prints the table."""
    facts = model_facts()
    if print_or_write_json([asdict(fact) for fact in facts], options.json):
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("input", "width", "heads", "GPSA", "params", "FLOPs", "top-1"):
        table.add_column(heading, justify="right")
    for fact in facts:
        table.add_row(*_row(fact))
    console = Console()
    console.print(table)
    console.print(
        "GPSA: blocks with gated positional self-attention, of all. params: at 1000 classes.\n"
        "FLOPs: multiply-adds of all matrix products for one image (the paper has 5.4G for small, which is nearer to\n"
        "the linear layers alone). top-1: the paper's, percent on ImageNet-1k.\n"
        "Other sizes: --image-size and --patch-size of 'convit train'.",
        soft_wrap=True,
    )


def _row(fact: ModelFacts) -> tuple[str, ...]:
    return (
        fact.name,
        f"{fact.image_size} px",
        str(fact.width),
        str(fact.heads),
        f"{fact.gpsa_blocks}/{fact.blocks}",
        f"{fact.parameters / 1e6:.1f}M",
        f"{fact.flops / 1e9:.2f}G" if fact.flops < 1e10 else f"{fact.flops / 1e9:.1f}G",
        "" if fact.paper_top1 is None else f"{fact.paper_top1:.1f}",
    )
