"""The two networks, and what the scripts share: loading pictures, augmenting them, contact sheets."""
import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
UNCONDITIONAL = len(LABELS)


class ConvBn(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return self.bn(self.conv(x))


class Block(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x))))))"""

    def __init__(self, w):
        super().__init__()
        self.a, self.b = ConvBn(w, w), ConvBn(w, w)

    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.a(x))))


class LettersClassifier(nn.Module):
    def __init__(self, widths=(24, 48, 96), classes=len(LABELS)):
        super().__init__()
        a, b, c = widths
        self.stem = ConvBn(1, a)
        self.down1, self.block1 = ConvBn(a, b, 2), Block(b)
        self.down2, self.block2 = ConvBn(b, c, 2), Block(c)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.block1(F.relu(self.down1(x)))
        x = self.block2(F.relu(self.down2(x)))
        return self.fc(x.mean((2, 3)))


def unet(widths=(32, 64, 128), layers=1):
    n = len(widths)
    return UNet2DModel(sample_size=32, in_channels=1, out_channels=1, layers_per_block=layers, block_out_channels=widths, norm_num_groups=8,
                       num_class_embeds=len(LABELS) + 1, attention_head_dim=32,
                       down_block_types=("DownBlock2D",) * (n - 1) + ("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (n - 1))


def scheduler():
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing")


def load(path, heldout=None):
    """Pictures in -1..1 [n,1,32,32], labels and face numbers; of one side of the split, or all."""
    d = np.load(path)
    keep = np.ones(len(d["y"]), bool) if heldout is None else d["heldout"] == heldout
    return torch.tensor(d["x"][keep], dtype=torch.float32)[:, None] / 127.5 - 1, torch.tensor(d["y"][keep]), torch.tensor(d["font"][keep])


def affine(x, degrees, scale, shear, shift, squeeze=0.0):
    """A small random affine map of each picture; the border is filled with background."""
    n = len(x)
    r = lambda s: (torch.rand(n) * 2 - 1) * s
    a, k, q, sh = r(degrees) * math.pi / 180, 1 + r(scale), 1 + r(squeeze), r(shear)
    m = torch.stack([torch.stack([a.cos() * k * q, -a.sin() * k + sh, r(shift)], 1), torch.stack([a.sin() * k * q, a.cos() * k, r(shift)], 1)], 1)
    return F.grid_sample(x + 1, F.affine_grid(m, x.shape, align_corners=False), mode="bilinear", padding_mode="zeros", align_corners=False) - 1


def sheet(x, columns, path, up=2):
    """Pictures in -1..1 as one PNG."""
    from PIL import Image
    n, _, h, w = x.shape
    g = torch.zeros(math.ceil(n / columns) * h, columns * w, dtype=torch.uint8)
    for i, p in enumerate(((x.clamp(-1, 1) + 1) * 127.5).round().byte()[:, 0]):
        r, c = divmod(i, columns)
        g[r * h:r * h + h, c * w:c * w + w] = p
    im = Image.fromarray(g.numpy())
    im.resize((im.width * up, im.height * up), Image.NEAREST).save(path)
