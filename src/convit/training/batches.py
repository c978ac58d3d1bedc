"""The batches that a run learns from."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from convit.data import EpochSampler, ImageSet, SampleDataset, normalised, training_transform
from convit.training.distributed import World
from convit.training.plan import Plan
from convit.training.workers import batches, end_workers, make_loader


class TrainingBatches:
    """The batches of every epoch; of several processes, this one's rows of each.

    Order and augmentation are functions of (seed, epoch, position): an epoch that begins at a later step gives the
    same batches from there on.

    Args:
        plan: of the run.
        images: to learn from.
        device: where they are needed.
        world: the processes that share a batch.
    """

    def __init__(self, plan: Plan, images: ImageSet, device: torch.device, world: World) -> None:
        options = plan.options
        self.plan, self.images, self.device, self.world = plan, images, device, world
        transform = training_transform(plan.preprocess, plan.augmentation)
        small = training_transform(replace(plan.preprocess, image_size=plan.first_size), plan.augmentation)
        first = (options.first_epochs or 0, small)
        dataset = SampleDataset(plan.packs.learning.copies(images), transform, seed=options.seed, first=first)
        self.sampler = EpochSampler(
            len(dataset),
            seed=options.seed,
            repeats=options.repeated_augmentation or 1,
            balance=images.targets if options.balanced_sampling else None,
            share=(plan.batch_size, world.rows(plan.batch_size).numpy()) if world.size > 1 else None,
        )
        self.loader = make_loader(
            dataset,
            options.workers or 0,
            beside_another=True,
            batch_size=plan.batch_size // world.size,
            sampler=self.sampler,
            drop_last=True,
            pin_memory=device.type == "cuda",
        )

    def of_epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images ``(B, 3, H, W)`` and targets ``(B,)`` of each step of an epoch, from step ``start`` on; in the first
        epochs the images have the plan's ``first_size``.

        Raises:
            WorkerDied: a process that loads them is gone. It is noticed between two batches.
        """
        self.sampler.set_epoch(epoch, start=start * self.plan.batch_size)
        for images, target in batches(self.loader):
            yield normalised(images.to(self.device, non_blocking=True), self.plan.preprocess), target

    def names(self, epoch: int, step: int, ranks: Iterable[int]) -> list[str]:
        """The paths or names of a step's images that these processes have."""
        size = self.plan.batch_size
        keys = self.sampler.keys(epoch)[step * size :]
        return [self.images.where(keys[row][1]) for rank in ranks for row in self.world.rows(size, rank).tolist()]

    def close(self) -> None:
        """Ends the processes that load."""
        end_workers(self.loader)
