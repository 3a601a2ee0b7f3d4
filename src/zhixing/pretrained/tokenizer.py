"""The tokenizer that lies beside published weights, under this project's ids.

Read are ``tokenizer.json``, BERT's ``vocab.txt``, GPT-2's ``vocab.json`` with ``merges.txt``, Marian's ``source.spm``
and ``target.spm`` with ``vocab.json``, and what a GGUF file holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..columns.tokenizer_published import Facts, Pieces, Published
from ..errors import DataError, MissingExtraError
from .files import Files, GGUFFile
from .layouts.layout import Layout, Role

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

__all__ = ["read_tokenizer"]

NONE = -1
# What a token is called in special_tokens_map.json, in config.json, and how it is spelled where nothing says so.
PADDING = ("pad_token", "pad_token_id", ("[PAD]", "<pad>"))
UNKNOWN = ("unk_token", "unk_token_id", ("[UNK]", "<unk>"))
BEGIN = (
    ("cls_token", "", ("[CLS]",)),
    ("bos_token", "bos_token_id", ("<s>", "<|endoftext|>")),
)
END = (
    ("sep_token", "", ("[SEP]",)),
    ("eos_token", "eos_token_id", ("</s>", "<|endoftext|>")),
)
MARIAN = ("source.spm", "target.spm", "vocab.json")
SPARE_ROWS = 1024  # vectors that no token has: tables are made a round number long
KNOWN_SPLITS = ("gpt-2", "smollm", "llama-bpe", "qwen2")  # how GGUF calls ways to cut text before pairs of bytes
DIGITS_OF_THREE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def read_tokenizer(layout: Layout, role: Role = "encoder") -> Published:
    """The tokenizer of a model, for what it reads or writes.

    Raises:
        DataError: there is none, it cannot be read, or it is that of another model.
    """
    files, config = layout.files, layout.config
    library: Library | Pieces
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        raise MissingExtraError("tokenizers", "text", purpose="a published tokenizer") from None
    if isinstance(files, GGUFFile):
        library, names = from_gguf(files), dict[str, str]()
    else:
        read = OWN_FILES.get(str(config.get("model_type")), from_folder)
        library, names = read(files, role), named_tokens(files)
    library.no_padding()
    library.no_truncation()
    size, rows = library.get_vocab_size(), int(config.get("vocab_size", 0)) or library.get_vocab_size()
    if size > rows or rows - size > max(SPARE_ROWS, rows // 30):
        raise DataError(
            f"the tokenizer has {size:,} tokens and the weights {rows:,} vectors: it is another model's",
            place=files.path,
            mend="Fetch weights and tokenizer of one model.",
        )
    padding, unknown = (special(library, names, config, (one,)) for one in (PADDING, UNKNOWN))
    begin, end = (special(library, names, config, several) for several in (BEGIN, END))
    begin = layout.begin(library, begin)
    if end == NONE:
        raise DataError("the tokenizer has no token that ends a text", place=files.path)
    frame = library.encode("").ids
    facts = Facts(
        (padding, unknown, begin if begin != NONE else end, end),
        rows,
        begins=len(frame) > 1 or (bool(frame) and frame[0] == begin != end),
        ends=bool(frame) and frame[-1] == end,
        lead=layout.lead(library),
        most=layout.positions(),
    )
    return Published(library, facts)


def special(
    library: Library | Pieces, names: Mapping[str, str], config: Mapping[str, Any], ways: tuple[Any, ...]
) -> int:
    """The id of a special token: as the tokenizer's files name it, as config.json numbers it, or as it is spelled."""
    for name, _, _ in ways:
        if name in names and (found := library.token_to_id(names[name])) is not None:
            return int(found)
    for _, number, _ in ways:
        value = config.get(number)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and 0 <= value < library.get_vocab_size():
            return value
    for _, _, spellings in ways:
        for spelling in spellings:
            if (found := library.token_to_id(spelling)) is not None:
                return int(found)
    return NONE


def named_tokens(files: Files) -> dict[str, str]:
    """Special tokens by their names, as the folder's files spell them."""
    out: dict[str, str] = {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        for name, value in (files.json(file) or {}).items():
            spelled = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(spelled, str):
                out[name] = spelled
    return out


def from_folder(files: Files, role: Role) -> Library | Pieces:
    from tokenizers import Tokenizer as Library

    place = files.path / "tokenizer.json"
    try:
        if place.is_file():
            return Library.from_file(str(place))
        if (files.path / "vocab.txt").is_file():
            place = files.path / "vocab.txt"
            return word_pieces(place, files.json("tokenizer_config.json") or {})
        if (files.path / "vocab.json").is_file() and (files.path / "merges.txt").is_file():
            place = files.path / "vocab.json"
            vocabulary = json.loads(place.read_text("utf-8"))
            merges = (files.path / "merges.txt").read_text("utf-8").splitlines()
            return byte_pairs(vocabulary, [line for line in merges if line and not line.startswith("#version")])
    except Exception as error:  # the library has no exception of its own
        raise DataError(f"the tokenizer cannot be read: {error}", place=place, mend="Fetch it again.") from error
    raise DataError(
        "there is no tokenizer beside the weights",
        place=files.path,
        mend="Fetch tokenizer.json (or vocab.txt, or vocab.json and merges.txt) from where the weights are from.",
    )


def sentence_pieces(files: Files, role: Role) -> Pieces:
    """One of Marian's two tokenizers: each language has a SentencePiece model, and a table numbers the pieces of both.

    Raises:
        DataError: a file is missing or damaged.
    """
    missing = [name for name in MARIAN if not (files.path / name).is_file()]
    if missing:
        raise DataError(
            f"the tokenizer lacks {', '.join(missing)}",
            place=files.path,
            mend="Fetch what is missing from where the weights are from.",
        )
    source, target, table = (files.path / name for name in MARIAN)
    place = source if role == "encoder" else target
    try:
        return Pieces(place.read_bytes(), files.json(table.name) or {})
    except ValueError as error:
        raise DataError(
            f"the tokenizer cannot be read: {error}", place=f"{place} with {table.name}", mend="Fetch both again."
        ) from error


# Families whose tokenizer lies in files of their own.
OWN_FILES: dict[str, Callable[[Files, Role], Library | Pieces]] = {"marian": sentence_pieces}


def word_pieces(place: Path, told: Mapping[str, Any]) -> Library:
    """BERT's tokenizer from its list of pieces."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    pieces = {piece: number for number, piece in enumerate(place.read_text("utf-8").splitlines())}
    library = Library(models.WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    library.normalizer = normalizers.BertNormalizer(
        lowercase=bool(told.get("do_lower_case", True)),
        handle_chinese_chars=bool(told.get("tokenize_chinese_chars", True)),
        strip_accents=told.get("strip_accents"),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.add_special_tokens([name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in pieces])
    library.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    return library


def byte_pairs(vocabulary: dict[str, int], merges: list[str], split: str = "gpt-2") -> Library:
    """A tokenizer over bytes, each spelled as a letter, as GPT-2's."""
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    pairs = [(first, second) for first, _, second in (line.partition(" ") for line in merges)]
    library = Library(models.BPE(vocabulary, pairs, ignore_merges=split == "llama-bpe"))
    cut: list[Any] = []
    if split == "smollm":
        cut = [pre_tokenizers.Digits(individual_digits=True)]
    elif split in ("llama-bpe", "qwen2"):
        digits = DIGITS_OF_THREE if split == "llama-bpe" else DIGITS_OF_THREE.replace("{1,3}", "")
        cut = [pre_tokenizers.Split(Regex(digits), "isolated")]
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in ("gpt-2", "smollm"))
    library.pre_tokenizer = pre_tokenizers.Sequence([*cut, spelled]) if cut else spelled
    library.decoder = decoders.ByteLevel()
    if (end := "<|endoftext|>") in vocabulary:
        library.add_special_tokens([end])
    return library


def from_gguf(files: GGUFFile) -> Library:
    """The tokenizer that a GGUF file holds.

    Raises:
        DataError: it is of a kind that is not read.
    """
    told = files.gguf.settings
    kind, split = told.get("tokenizer.ggml.model"), told.get("tokenizer.ggml.pre", "gpt-2")
    tokens, merges = told.get("tokenizer.ggml.tokens"), told.get("tokenizer.ggml.merges")
    known = kind == "gpt2" and split in KNOWN_SPLITS and isinstance(tokens, list) and isinstance(merges, list)
    if not known:
        raise DataError(
            f"its tokenizer is of the kind {kind!r}, cut {split!r}, which is not read",
            place=files.path,
            mend=f"Take the model's safetensors, or a file whose tokenizer is gpt2, cut {', '.join(KNOWN_SPLITS)}.",
        )
    assert isinstance(tokens, list)
    assert isinstance(merges, list)
    library = byte_pairs({token: number for number, token in enumerate(tokens)}, merges, str(split))
    kinds = told.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    library.add_special_tokens([token for token, one in zip(tokens, kinds, strict=True) if one == 3])
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding", "unk_token_id": "unknown"}
    for ours, theirs in names.items():
        if (number := told.get(f"tokenizer.ggml.{theirs}_token_id")) is not None:
            files.config.setdefault(ours, number)
    return library
