"""What figures depend on: the machine, the threads, the versions."""

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A machine and what runs on it."""

    device: str
    processor: str
    cores: int
    """CPU cores that this process may use."""
    gpu: str | None
    """Name of the GPU, if that is the device."""
    system: str
    threads: int
    """Of PyTorch, on the CPU."""
    versions: dict[str, str]
    """Of convit, torch, timm, Python, and of CUDA if that is the device."""

    def lines(self) -> tuple[str, str]:
        """The head of a table."""
        device = f"{self.gpu}, beside " if self.gpu else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{device}{self.processor}, {self.cores} cores, {self.threads} threads, {self.system}; on {self.device}",
            versions,
        )


def machine_facts(device: torch.device) -> Facts:
    """Those of this machine now."""
    versions = {name: importlib.metadata.version(name) for name in ("convit", "torch", "timm")}
    versions["Python"] = platform.python_version()
    on_gpu = device.type == "cuda"
    if on_gpu:
        versions["CUDA"] = str(torch.version.cuda or torch.version.hip)
    return Facts(
        device=device.type,
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        gpu=torch.cuda.get_device_name(device) if on_gpu else None,
        system=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
        versions=versions,
    )


def _processor() -> str:
    """The name of the CPU: Linux has it in a file only."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
