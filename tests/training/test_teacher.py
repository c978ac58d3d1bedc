"""Learning from a teacher: both losses by hand, classes by name, what does not fit."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import convit
from convit.data import Preprocess
from convit.errors import InputError
from convit.training import Asked, Stopped
from convit.training.run import train
from convit.training.teacher import Distiller, Teacher, hard_loss, make_distiller, soft_loss
from tests.training.small import StopAt, exact, metrics, options, resume
from tests.training.test_learner import learner

CPU, SEEN = torch.device("cpu"), Preprocess(image_size=(8, 8))
LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # p = (1/4, 3/4) and (1/2, 1/2)
ANSWERS = torch.tensor([[math.log(9.0), 0.0], [0.0, 5.0]])  # q = (9/10, 1/10) and nearly (0, 1)
COUNTS = {"dark": 8, "light": 8}


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "resnet.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=2).state_dict(), path)
    return path


def test_hard_loss_by_hand() -> None:
    """The teacher answers 0 and 1, of which the model holds 1/4 and 1/2."""
    assert hard_loss(LOGITS, ANSWERS).item() == pytest.approx(math.log(4) + math.log(2))


def test_soft_loss_by_hand() -> None:
    first = 0.9 * math.log(0.9 / 0.25) + 0.1 * math.log(0.1 / 0.75)
    assert soft_loss(LOGITS[:1], ANSWERS[:1], 1.0).item() == pytest.approx(first, rel=1e-6)
    # At T = 2 the odds are their roots: p = (1, sqrt 3), q = (3, 1), each over its sum.
    p, q = math.sqrt(3) / (1 + math.sqrt(3)), 1 / 4
    expected = 4 * ((1 - q) * math.log((1 - q) / (1 - p)) + q * math.log(q / p))
    assert soft_loss(LOGITS[:1], ANSWERS[:1], 2.0).item() == pytest.approx(expected, rel=1e-6)
    both = soft_loss(LOGITS, ANSWERS, 2.0).item()
    assert both == pytest.approx(expected + soft_loss(LOGITS[1:], ANSWERS[1:], 2.0).item(), rel=1e-6)


def test_gradient_of_the_soft_loss_keeps_its_size() -> None:
    """``T^2 dKL/dz = T (p - q)``, which for large T goes to the difference of the centred logits over the classes."""
    logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    soft_loss(logits, torch.tensor([[0.0, 0.0, 0.0]]), 1000.0).backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([[1.0, 0.0, -1.0]]) / 3, atol=1e-3)


@pytest.mark.parametrize(("part", "expected"), [(0.0, 7.0), (1.0, math.log(8)), (0.25, 0.75 * 7 + 0.25 * math.log(8))])
def test_parts_of_the_whole(part: float, expected: float) -> None:
    distiller = Distiller(Teacher(nn.Identity(), "it", SEEN), alpha=part)
    assert distiller.loss(torch.tensor(7.0), LOGITS, ANSWERS).item() == pytest.approx(expected)


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_teacher_sees_its_own_normalisation_and_answers_in_our_order() -> None:
    own = Preprocess(image_size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.1))
    raw = torch.rand(2, 3, 8, 8)
    mean, std, own_mean, own_std = (torch.tensor(x).view(3, 1, 1) for x in (SEEN.mean, SEEN.std, own.mean, own.std))
    teacher = Teacher(Means(), "means", SEEN, own, order=[2, 0, 1])
    expected = ((raw - own_mean) / own_std).mean((2, 3))[:, [2, 0, 1]]
    assert torch.allclose(teacher((raw - mean) / std), expected, atol=1e-5)
    same = Teacher(Means(), "means", SEEN)
    assert torch.equal(same(raw), raw.mean((2, 3)))


def test_teacher_stays_as_it_is(data: Path, teacher_file: Path) -> None:
    """Not its weights, nor the statistics of its norms; and no gradient goes to it."""
    of = learner(data, teacher="resnet10t", teacher_weights=teacher_file, lr=1e-2, warmup_epochs=0.0)
    assert of.distiller is not None
    before = {name: value.clone() for name, value in of.distiller.teacher.state_dict().items()}
    of.step(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]), 0, 0)
    assert all(torch.equal(before[name], value) for name, value in of.distiller.teacher.state_dict().items())
    assert not any(p.requires_grad for p in of.distiller.teacher.parameters())
    assert not of.distiller.teacher.model.training


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_student_with_nothing_but_the_teacher_follows_it(
    kind: str, data: Path, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On targets that are all wrong, the student ends with the teacher's answers."""
    more = {"distillation": kind, "distillation_alpha": 1.0} | (
        {"distillation_temperature": 1.0} if kind == "soft" else {}
    )
    more |= {"drop_path": 0.0, "lr": 3e-3, "warmup_epochs": 0.0, "epochs": 40, "clip_grad": 1.0}
    of = learner(data, teacher="resnet10t", teacher_weights=teacher_file, **more)
    assert of.distiller is not None
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = of.distiller.teacher(images)
        answers -= answers.median(dim=0).values  # so that the teacher has both answers to give, and is sure of them
        answers *= 20 / answers.abs().max()
    monkeypatch.setattr(of.distiller.teacher, "forward", lambda _: answers)
    wanted = answers.argmax(-1)
    assert 4 <= int(wanted.sum()) <= 12
    losses = [of.step(images, 1 - wanted, 0, step) for step in range(60)]
    of.model.eval()
    assert torch.equal(of.model(images).argmax(-1), wanted)
    assert losses[-1] < losses[0] / 4


def test_stopped_run_goes_on_to_the_same_bits(data: Path, teacher_file: Path, tmp_path: Path) -> None:
    given = {"teacher": "resnet10t", "teacher_weights": teacher_file, "distillation": "soft", "epochs": 2}
    train(options(data, tmp_path / "whole", **given))
    with pytest.raises(Stopped):
        train(options(data, tmp_path / "parts", **given), StopAt("epoch 2/2", 1, signum=signal.SIGTERM))
    train(resume(tmp_path / "parts"))  # the teacher is known
    assert exact(tmp_path / "whole") == exact(tmp_path / "parts")
    train(options(data, tmp_path / "alone", epochs=2))
    assert metrics(tmp_path / "alone")[0]["train_loss"] != metrics(tmp_path / "whole")[0]["train_loss"]


def test_run_as_a_teacher(data: Path, tmp_path: Path) -> None:
    """Its classes are matched by name, also from another order."""
    train(options(data, tmp_path / "teacher", epochs=1))
    student = options(data, tmp_path / "student", epochs=1, teacher_weights=tmp_path / "teacher")
    train(student)
    assert (tmp_path / "student/model.safetensors").exists()
    turned = make_distiller(student, ("light", "dark"), SEEN, CPU)
    straight = make_distiller(student, ("dark", "light"), SEEN, CPU)
    assert turned is not None
    assert straight is not None
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(turned.teacher(images), straight.teacher(images).flip(-1))
    own = convit.load(tmp_path / "teacher").model.eval()
    assert torch.equal(straight.teacher(images), own(images))


def refused(match: str, classes: tuple[str, ...] = ("dark", "light"), size: int = 8, **more: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        make_distiller(Asked(**more), classes, Preprocess(image_size=(size, size)), CPU)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit(data: Path, teacher_file: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", epochs=1))
    refused("teacher: got 'resnet19', expected the name of a timm model; did you mean 'resnet1", teacher="resnet19")
    refused("know 1000 classes, the data has 2; expected --teacher-weights FILE", teacher="resnet18")
    refused("no weights are published for vit_giant_patch14_224", teacher="vit_giant_patch14_224")
    refused("does not say of which model; expected a run folder, or --teacher", teacher_weights=teacher_file)
    refused("no such file", teacher="resnet18", teacher_weights=tmp_path / "none.pth")
    refused("not the weights of the teacher resnet18 with 2", teacher="resnet18", teacher_weights=teacher_file)
    refused("with 3 classes", ("a", "b", "c"), teacher="resnet10t", teacher_weights=teacher_file)
    refused("expected the 2 of the data by name; 'cat' is in one", ("cat", "dark"), teacher_weights=tmp_path / "run")
    refused("does not take images of 10 x 10 pixels", size=10, teacher_weights=tmp_path / "run")
    refused("got resnet18, expected convit_micro_patch4_32", teacher="resnet18", teacher_weights=tmp_path / "run")


def test_overwrite_spares_the_teacher(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", epochs=1))
    with pytest.raises(InputError, match="which --overwrite would delete with the weights"):
        train(options(data, tmp_path / "run", epochs=1, teacher_weights=tmp_path / "run", overwrite=True))
    assert (tmp_path / "run/model.safetensors").exists()
