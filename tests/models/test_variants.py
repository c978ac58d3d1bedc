"""The models by name: what each name stands for, and that timm finds it."""

import pytest
import timm
import torch
from timm.models.convit import ConVit as TimmConViT

from convit import InputError, create_model, list_models
from convit.models.sizes import ModelFacts, model_facts
from convit.models.variants import multiply_adds


def test_timm_finds_our_names_and_keeps_its_own() -> None:
    for name in list_models():
        assert timm.is_model(name), name
    assert type(timm.create_model("convit_tiny_patch16_224", device="meta")).__module__ == "convit.models.convit"
    for size in ("tiny", "small", "base"):
        assert type(timm.create_model(f"convit_{size}", device="meta")) is TimmConViT
        assert f"convit_{size}" not in list_models()


TABLE_1 = {  # width, heads
    "tiny": (192, 4),
    "tiny_plus": (256, 4),
    "small": (432, 9),
    "small_plus": (576, 9),
    "base": (768, 16),
    "base_plus": (1024, 16),
}


@pytest.mark.parametrize("size", TABLE_1)
def test_models_of_table_1(size: str) -> None:
    model = create_model(f"convit_{size}_patch16_224", device="meta")
    attention = [block.attn for block in model.blocks]
    assert (model.embed_dim, attention[0].num_heads) == TABLE_1[size]
    assert [hasattr(layer, "gating_param") for layer in attention] == [True] * 10 + [False] * 2
    assert (model.num_classes, model.grid_size, model.img_size) == (1000, (14, 14), (224, 224))


SMALL_IMAGES = [
    ("convit_micro_patch4_16", 16, 4),
    ("convit_micro_patch4_32", 32, 8),
    ("convit_micro_patch8_64", 64, 8),
    ("convit_micro_patch8_128", 128, 16),
    *(
        (f"convit_{size}_patch{patch}_{side}", side, side // patch)
        for size in ("nano", "mini")
        for patch, side in ((4, 16), (4, 32), (8, 64), (8, 128))
    ),
    ("convit_tiny_patch4_32", 32, 8),
    ("convit_tiny_patch8_64", 64, 8),
    ("convit_small_patch4_32", 32, 8),
    ("convit_small_patch8_64", 64, 8),
]


@pytest.mark.parametrize(("name", "img_size", "side"), SMALL_IMAGES)
def test_models_for_small_images(name: str, img_size: int, side: int) -> None:
    model = create_model(name, num_classes=10, device="meta")
    assert (model.img_size, model.grid_size) == ((img_size, img_size), (side, side))
    assert model.pos_embed.shape[1] == side * side
    assert model.pretrained_cfg["input_size"] == (3, img_size, img_size)
    x = torch.empty(2, 3, img_size, img_size, device="meta")
    assert model(x).shape == (2, 10)


def test_every_name_is_covered_here() -> None:
    assert set(list_models()) == {name for name, *_ in SMALL_IMAGES} | {f"convit_{s}_patch16_224" for s in TABLE_1}


def test_keywords_take_the_place_of_the_names_values() -> None:
    model = create_model("convit_tiny_patch4_32", img_size=(16, 24), depth=2, local_up_to_layer=1, device="meta")
    assert (model.grid_size, len(model.blocks), model.local_up_to_layer) == ((4, 6), 2, 1)


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"got 'convit_tyni_patch4_32', .*; did you mean 'convit_tiny_patch4_32'\?"):
        create_model("convit_tyni_patch4_32")
    with pytest.raises(InputError, match=r"model: got 'resnet50', expected a name that 'convit models' lists$"):
        create_model("resnet50")


@pytest.fixture(scope="module")
def facts() -> dict[str, ModelFacts]:
    return {fact.name: fact for fact in model_facts()}


def test_facts(facts: dict[str, ModelFacts]) -> None:
    assert list(facts) == list_models()
    tiny = facts["convit_tiny_patch16_224"]
    assert (tiny.image_size, tiny.patch_size, tiny.width, tiny.heads) == (224, 16, 192, 4)
    assert (tiny.blocks, tiny.gpsa_blocks, tiny.parameters, tiny.paper_top1) == (12, 10, 5_710_512, 73.1)
    n, c = 196, 192
    # qk, v and proj 4 N C^2, the perceptron 8 N C^2, two products of content attention, rows and columns of 14.
    gpsa = 12 * n * c**2 + 2 * n**2 * c + n * (14 + 14) * c
    plain = 12 * (n + 1) * c**2 + 2 * (n + 1) ** 2 * c
    assert tiny.flops == n * 3 * 16**2 * c + 10 * gpsa + 2 * plain + 1000 * c


@pytest.mark.parametrize("name", list_models())
def test_facts_are_what_is_counted(name: str, facts: dict[str, ModelFacts]) -> None:
    side = facts[name].image_size
    model = create_model(name, device="meta")
    assert facts[name].parameters == sum(parameter.numel() for parameter in model.parameters())
    assert facts[name].flops == multiply_adds(name, (side, side))
    shape = (model.patch_size, model.embed_dim, len(model.blocks), model.local_up_to_layer)
    assert (facts[name].patch_size, facts[name].width, facts[name].blocks, facts[name].gpsa_blocks) == shape


def test_flops_are_those_of_the_paper(facts: dict[str, ModelFacts]) -> None:
    table_1 = {"tiny": 1, "tiny_plus": 2, "small": 5.4, "small_plus": 10, "base": 17, "base_plus": 30}
    for size, giga in table_1.items():  # printed with one or two digits
        assert facts[f"convit_{size}_patch16_224"].flops / 1e9 == pytest.approx(giga, rel=0.07, abs=0.3), size
