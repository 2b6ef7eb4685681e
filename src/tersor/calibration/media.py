"""Images and texts as batches of model inputs, by the model's own transform or tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.errors import CalibrationError
from tersor.sources.model import Model
from tersor.sources.running import Sample

if TYPE_CHECKING:
    import torch

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif"})
ROOM, MOST = 2**20, 32
"""Numbers in a batch of images or rows, and so many inputs at most: activations grow with both."""
TEXTS = 16
"""Texts in a batch."""
LENGTH = 128
"""Tokens that are read of a text."""
BLOCK = 512
"""Tokens of a piece of text for language models."""
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def batch_size(numbers: int) -> int:
    """How many inputs of so many numbers make a batch."""
    return max(1, min(MOST, ROOM // max(1, numbers)))


# -- images ------------------------------------------------------------------------------------------------------------


def images_in(folder: Path) -> list[Path]:
    """The images in a folder and those below it, in the order of their names."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise CalibrationError(
            "there are no images", where=str(folder), remedy=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return found


def image_batches(images: Sequence[Any], model: Model) -> Iterator[Sample]:
    """Batches of images (paths or PIL images) as the model's transform gives them."""
    import torch

    transform, waiting = _transform(model), list["torch.Tensor"]()
    for number, image in enumerate(images, 1):
        waiting.append(transform(_opened(image)))
        if waiting[-1].shape != waiting[0].shape:
            raise CalibrationError(
                "the model's transform gives images of several sizes",
                remedy="give batches with python:MODULE:FUNCTION",
            )
        if len(waiting) == batch_size(waiting[0].numel()) or number == len(images):
            batch = torch.stack(waiting)
            waiting.clear()
            yield batch if model.transform is not None else {"pixel_values": batch}


def _opened(image: Any) -> Any:
    if not isinstance(image, Path):
        return image.convert("RGB")
    from PIL import Image

    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError) as error:
        raise CalibrationError(
            f"the image cannot be read: {error}", where=str(image), remedy="remove it from the folder"
        ) from error


def _transform(model: Model) -> Callable[[Any], torch.Tensor]:
    """The model's function from an image to a tensor (channels, height, width)."""
    if model.transform is not None:
        return model.transform
    if model.folder is not None and (model.folder / "preprocessor_config.json").is_file():
        from transformers import AutoImageProcessor

        processor = _pretrained(
            AutoImageProcessor, model.folder, "image processor", "give batches with python:MODULE:FUNCTION"
        )
        return lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0]
    raise CalibrationError(
        "the model does not say how images become its inputs",
        where=model.label,
        remedy="give batches with python:MODULE:FUNCTION instead of a folder of images",
    )


# -- texts -------------------------------------------------------------------------------------------------------------


def texts_in(path: Path, model: Model) -> list[str] | list[np.ndarray]:
    """The lines of a text file; for a causal language model, blocks of `BLOCK` tokens of it.

    Raises `CalibrationError` for files that are no UTF-8 text or hold none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"cannot be read as UTF-8 text: {error}",
            where=str(path),
            remedy="samples in files are plain text; for others use python:MODULE:FUNCTION",
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise CalibrationError("there is no text", where=str(path), remedy="give one text a line")
    if not type(model.module).__name__.endswith(_CAUSAL):
        return lines
    tokens = np.array(_tokenizer(model)(text, add_special_tokens=False, verbose=False)["input_ids"])
    blocks = [tokens[k : k + BLOCK] for k in range(0, len(tokens), BLOCK)]
    return blocks[:-1] if len(blocks) > 1 else blocks  # the last one is short


def text_batches(texts: Sequence[Any], model: Model) -> Iterator[Sample]:
    """Batches of texts or blocks of tokens; texts of like length stand together, so that there is little padding."""
    import torch

    if len(texts) and isinstance(texts[0], np.ndarray):
        for block in texts:  # one at a time: a language model's outputs are large
            ids = torch.from_numpy(block)[None]
            yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return
    tokenizer = _tokenizer(model)
    ordered = sorted(texts, key=len)
    longest = min(LENGTH, tokenizer.model_max_length)
    for k in range(0, len(ordered), TEXTS):
        part = ordered[k : k + TEXTS]
        yield dict(tokenizer(part, padding=True, truncation=True, max_length=longest, return_tensors="pt"))


def _tokenizer(model: Model) -> Any:
    if model.folder is None:
        raise CalibrationError(
            "the model has no tokenizer",
            where=model.label,
            remedy="give batches with python:MODULE:FUNCTION instead of a text file",
        )
    from transformers import AutoTokenizer

    tokenizer = _pretrained(AutoTokenizer, model.folder, "tokenizer", "add the tokenizer's files to the model's folder")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _pretrained(loader: Any, folder: Path, what: str, remedy: str) -> Any:
    """What a class of transformers loads from the files of a folder, and from nowhere else."""
    try:
        return loader.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise CalibrationError(f"the {what} cannot be loaded: {error}", where=str(folder), remedy=remedy) from error
