"""The mean of the adapter's weights over the last steps of training, in place of the weights after the last one.

Weights after single steps scatter around a point that is better than each of them; their mean is close to it (Izmailov
et al. 2018, arXiv 1803.05407; over the latest weights: Kaddour 2022, arXiv 2209.14981).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

#: Beside the weights of a checkpoint.
AVERAGE_FILE = "average.safetensors"


class WeightAverage:
    """The running mean of a model's trained parameters, in float32."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self.mean: dict[str, torch.Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def add(self) -> None:
        """Take the present weights into the mean."""
        self.count += 1
        for name, part in self.parameters.items():
            mean = self.mean.setdefault(name, torch.zeros_like(part, dtype=torch.float32))
            mean += (part - mean) / self.count

    @torch.no_grad()
    def apply(self) -> None:
        """Give the parameters their mean; without one they keep their weights."""
        for name, mean in self.mean.items():
            self.parameters[name].copy_(mean)

    def write(self, checkpoint: Path) -> None:
        """Put the mean into the folder of a checkpoint, when there is one."""
        if self.count:
            save_file(self.mean, checkpoint / AVERAGE_FILE, metadata={"count": str(self.count)})

    def read(self, checkpoint: Path) -> None:
        """Go on from the mean of a checkpoint; one that was written before the first step of the mean has none."""
        path = checkpoint / AVERAGE_FILE
        if not path.is_file():
            return
        with safe_open(path, framework="pt") as stored:
            self.count = int(stored.metadata()["count"])
            self.mean = {name: stored.get_tensor(name).to(part.device) for name, part in self.parameters.items()}
