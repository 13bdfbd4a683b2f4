"""A pretrained encoder of texts in a folder: found, loaded, and told by the hash of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.recipes import weight_files
from models.recipes.errors import CannotTrain
from models.text_code import MAX_LENGTH, STEP, Tokens

_TOLD = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """`model` (transformers, weights in safetensors) and the code of its tokenizer.

    `source`: the name that was given and the SHA-256 of the folder's files.
    """

    model: Any
    code: Tokens
    pad: int
    source: str


def load(weights: str, length: int) -> Pretrained:
    """`weights`: a folder, or 'package:NAME/folder/in/it' of an installed package. Reaches no hub.

    Raises CannotTrain, also for weights that are no safetensors and for a tokenizer without a fast form.
    """
    folder = _folder(weights)
    if not STEP <= length <= MAX_LENGTH:
        raise CannotTrain(f"length={length!r}: {STEP} to {MAX_LENGTH} tokens")
    try:
        from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast
    except ImportError:
        raise CannotTrain(
            "this recipe needs transformers, which is not installed: install driftlog with its extra 'deep'"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, attn_implementation="eager"
        )
    except Exception as error:  # OSError, ValueError, or what the files lead the library to
        raise CannotTrain(f"weights={weights!r}: {_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.pad_token_id is None:
        raise CannotTrain(f"weights={weights!r}: its tokenizer has no fast form or no padding")
    longest = getattr(model.config, "max_position_embeddings", length)
    whole = min(-(-length // STEP) * STEP, longest // STEP * STEP)
    plain = tokenizer.backend_tokenizer
    plain.enable_truncation(whole)
    plain.enable_padding(length=whole, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    code = Tokens(whole, plain.to_str())
    return Pretrained(model, code, int(tokenizer.pad_token_id), f"{weights} {_sha256(folder)}")


def _folder(weights: str) -> Path:
    if not weights:
        raise CannotTrain(
            "weights='': name the folder of a pretrained model, or 'package:NAME/folder'"
        )
    folder = weight_files.found("weights", weights)
    if not (folder / "config.json").is_file():
        raise CannotTrain(f"weights={weights!r}: no config.json in {folder}")
    return folder


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _TOLD:
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
