"""Two more architectures for Fashion-MNIST: inverted residuals (MobileNetV2) and a vision transformer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Inverted(nn.Module):
    """Widen, filter every channel, narrow; with a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.widen = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.narrow = nn.Conv2d(inner, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm1(self.widen(x)))
        y = F.relu6(self.norm2(self.depthwise(y)))
        y = self.norm3(self.narrow(y))
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """MobileNetV2 for 28 x 28 images: 0.7 M weights."""

    # expansion, channels, blocks, stride of the first block
    stages = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 40, 3, 2), (4, 80, 3, 1), (4, 128, 2, 1))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        inputs, blocks = 24, list[Inverted]()
        for expansion, channels, count, stride in self.stages:
            for k in range(count):
                blocks.append(Inverted(inputs, channels, 1 if k else stride, expansion))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(inputs, 512, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(512)
        self.classifier = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu6(self.norm(self.stem(x))))
        return self.classifier(F.relu6(self.head_norm(self.head(x))).mean((2, 3)))


class EncoderBlock(nn.Module):
    """Attention and a two-layer network, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.projection(attended.transpose(1, 2).reshape(n, tokens, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches of 7 x 7, six blocks of width 128, mean of the tokens: 1.2 M weights."""

    def __init__(self, width: int = 128, depth: int = 6, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.classifier(self.norm(self.blocks(tokens)).mean(1))
