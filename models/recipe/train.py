"""Trains resnet8 or dscnn on Fashion-MNIST, exports it to ONNX and writes the sample files.

    python train.py resnet8 --out out/resnet8

writes resnet8.onnx (opset 17, dynamic batch, checked with ONNX Runtime), calib512.npz and test10k.npz.
Same machine, same versions, same seed and number of threads: same weights.
"""

import argparse
import gzip
import pathlib
import time

import numpy as np
import onnxruntime
import torch
from torch import nn

MEAN, STD = np.float32(0.2860), np.float32(0.3530)
FILES = {"train": 60_000, "t10k": 10_000}
HELP = """{} is missing. On Debian: `apt-get install dataset-fashion-mnist`. Elsewhere: download the four .gz files of
https://github.com/zalandoresearch/fashion-mnist (folder data/fashion) and pass their folder with --data."""


def load(folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 1, 28, 28] as uint8 and labels [n] of one split, from the original idx files."""
    count, arrays = FILES[split], []
    for kind, header, shape in (("images-idx3", 16, (count, 1, 28, 28)), ("labels-idx1", 8, (count,))):
        path = folder / f"{split}-{kind}-ubyte.gz"
        if not path.is_file():
            raise SystemExit(HELP.format(path))
        arrays.append(np.frombuffer(gzip.open(path).read(), np.uint8, offset=header).reshape(shape))
    return arrays[0], arrays[1].astype(np.int64)


def normalise(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float32) / np.float32(255) - MEAN) / STD


def conv(cin: int, cout: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch normalization; the exporter folds the latter into the former."""
    layer = nn.Conv2d(cin, cout, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(cout))


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(conv(cin, cout, 3, stride), nn.ReLU(), conv(cout, cout, 3))
        self.shortcut = nn.Identity() if cin == cout else conv(cin, cout, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet8() -> nn.Module:
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
    return nn.Sequential(conv(1, 16, 3), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def dscnn() -> nn.Module:
    layers = [conv(1, 64, 5, stride=2), nn.ReLU()]
    for _ in range(4):
        layers += [conv(64, 64, 3, groups=64), nn.ReLU(), conv(64, 64, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def augment(x: torch.Tensor) -> torch.Tensor:
    """Mirrors every second image at random and shifts the batch by up to two pixels; the border is black."""
    mirrored = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    black = float(-MEAN / STD)
    dy, dx = torch.randint(0, 5, (2,)).tolist()
    return nn.functional.pad(mirrored, (2, 2, 2, 2), value=black)[:, :, dy : dy + 28, dx : dx + 28]


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, batch: int) -> None:
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train()
    for epoch in range(epochs):
        start, total = time.time(), 0.0
        for part in torch.randperm(len(x))[: len(x) // batch * batch].view(-1, batch):
            loss = loss_of(model(augment(x[part])), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / (len(x) // batch):.4f}, {time.time() - start:.0f} s", flush=True)
    model.eval()


def export(model: nn.Module, path: pathlib.Path, x: np.ndarray) -> np.ndarray:
    """Writes the file, compares it with PyTorch on some samples, and gives its logits for all of them."""
    axes = {"input": {0: "N"}, "output": {0: "N"}}
    torch.onnx.export(
        model, (torch.from_numpy(x[:1]),), path, input_names=["input"], output_names=["output"],
        dynamic_axes=axes, opset_version=17, do_constant_folding=True, dynamo=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, {"input": part})[0] for part in np.array_split(x, -(-len(x) // 500))])
    with torch.no_grad():
        reference = model(torch.from_numpy(x[:256])).numpy()
    worst = np.abs(logits[:256] - reference).max()
    if not worst < 1e-3:
        raise SystemExit(f"the exported file differs from PyTorch by {worst}")
    print(f"{path}: differs from PyTorch by at most {worst:.1e}")
    return logits


def main() -> None:
    models = {"resnet8": resnet8, "dscnn": dscnn}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=models)
    parser.add_argument("--data", type=pathlib.Path, default="/usr/share/datasets/fashion-mnist", help="folder of .gz files")
    parser.add_argument("--out", type=pathlib.Path, default="out")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=60_000, help="train on the first so many images (for a quick try)")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    (train_x, train_y), (test_x, test_y) = load(args.data, "train"), load(args.data, "t10k")
    train_x, test_x = normalise(train_x), normalise(test_x)
    model = models[args.model]()
    kept = slice(0, args.samples)
    train(model, torch.from_numpy(train_x[kept]), torch.from_numpy(train_y[kept]), args.epochs, args.batch)

    args.out.mkdir(parents=True, exist_ok=True)
    logits = export(model, args.out / f"{args.model}.onnx", test_x)
    print(f"top-1 on {len(test_y)} test images: {100 * np.mean(logits.argmax(1) == test_y):.2f} %")
    # Calibration looks at training images only.
    chosen = np.random.RandomState(args.seed).permutation(len(train_x))[:512]
    np.savez_compressed(args.out / "calib512.npz", x=train_x[chosen], y=train_y[chosen])
    np.savez_compressed(args.out / "test10k.npz", x=test_x, y=test_y)


if __name__ == "__main__":
    main()
