"""BatchNorm over the images of all ranks, on any device (torch's own is for GPUs alone)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from comics.ranks import sum_over_ranks, world


class _OverRanks:
    """What a BatchNorm2d becomes: in training, with the statistics of all ranks."""

    def forward(self: nn.BatchNorm2d, x: Tensor) -> Tensor:  # type: ignore[misc]
        if not self.training or world() == 1:
            return super().forward(x)  # type: ignore[misc, safe-super]
        dtype = x.dtype
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            cells = wide.new_tensor([wide.numel() / wide.shape[1]])
            total = sum_over_ranks(torch.cat([wide.sum(dim=(0, 2, 3)), cells]))
            count = total[-1].detach()
            mean = total[:-1] / count
            centred = wide - mean.view(1, -1, 1, 1)
            variance = sum_over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
            self._follow(mean.detach(), variance.detach(), count)  # type: ignore[operator]
            result = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
            if self.affine:
                result = result * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
            return result.to(dtype)

    @torch.no_grad()
    def _follow(self: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: Tensor) -> None:  # type: ignore[misc]
        if self.running_mean is None or self.running_var is None or not getattr(self, "updates", True):
            return
        momentum = self.momentum if self.momentum is not None else 0.1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((variance * count / (count - 1).clamp(min=1)).to(self.running_var.dtype), momentum)
        if self.num_batches_tracked is not None and type(self).__mro__[2] is nn.BatchNorm2d:
            self.num_batches_tracked += 1


def over_ranks(model: nn.Module) -> nn.Module:
    """`model`, whose BatchNorm layers take the statistics of all ranks from now on. Names and state stay as they are."""
    for module in model.modules():
        kind = type(module)
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module, _OverRanks):
            module.__class__ = type(f"{kind.__name__}OverRanks", (_OverRanks, kind), {})
    return model
