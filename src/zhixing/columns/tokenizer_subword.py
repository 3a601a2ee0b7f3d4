"""Tokenizers whose tokens are parts of words, learned by the libraries tokenizers and sentencepiece."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import DataError, MissingExtraError, RunError
from .segment import join_words
from .tokenizer_plain import Ids, Plan, Tokenizer, codes, flat
from .vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, commonest

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

__all__ = ["BytePairs", "SentencePieces", "WordPieces"]

LINE = 1000  # characters: what SentencePiece takes for a sentence


class FromLibrary(Tokenizer):
    """Base of what the library tokenizers trains."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.size = library.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> Ids:
        return flat(done.ids for done in self.library.encode_batch_fast(list(texts), add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(list(ids))

    def piece(self, token: int) -> str:
        return self.library.decode([token])

    def state(self) -> dict[str, Any]:
        return {"json": json.loads(self.library.to_str())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls(library_of(state["json"]))


def library_of(state: dict[str, Any]) -> Library:
    needs_library()
    from tokenizers import Tokenizer as Library

    try:
        return Library.from_str(json.dumps(state))
    except Exception as error:  # the library has no exception of its own
        raise RunError(f"a tokenizer cannot be read back: {error}") from error


def without_added(library: Library) -> Library:
    """The same without added tokens: those would be found in any text that happens to spell them."""
    return library_of(json.loads(library.to_str()) | {"added_tokens": []})


def needs_library() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        raise MissingExtraError("tokenizers", "text", purpose="this tokenizer") from None


class BytePairs(FromLibrary):
    """Byte-level byte-pair encoding: lossless, nothing unknown.

    Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016, over bytes as in
    Radford et al., "Language models are unsupervised multitask learners", 2019.
    """

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        needs_library()
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, trainers

        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=plan.size,
            min_frequency=2,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library.train_from_iterator(iter(texts), trainer)
        return cls(without_added(library))

    def bytes_of_pieces(self) -> list[int] | None:
        # Each byte is spelled as one letter in the library's vocabulary.
        spelled = [self.library.id_to_token(token) for token in range(self.size)]
        return [0] * len(SPECIAL) + [len(piece or "") for piece in spelled[len(SPECIAL) :]]


class WordPieces(FromLibrary):
    """Words in pieces, those that go on marked with ``##``; white space is not kept.

    Schuster and Nakajima, "Japanese and Korean voice search", 2012; as in Devlin et al., "BERT", 2019.
    """

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        needs_library()
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        library = Library(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
        library.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        alphabet, pieces = cls.alphabet(library, texts, plan.size)
        trainer = trainers.WordPieceTrainer(
            vocab_size=plan.size,
            min_frequency=2,
            # The trainer numbers pieces that go on as it meets them, in the order of a hash table that is another in
            # each process. Given here, they have their numbers before it starts.
            special_tokens=[*SPECIAL, *pieces],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        library.train_from_iterator(iter(texts), trainer)
        return cls(without_added(library))

    def decode(self, ids: Sequence[int]) -> str:
        return join_words(self.library.decode(list(ids)).split())

    @staticmethod
    def alphabet(library: Library, texts: Sequence[str], size: int) -> tuple[list[str], list[str]]:
        """The commonest characters that fill no more than half the vocabulary, and their pieces: each by itself, and
        as one that goes on where it can stand inside a word."""
        normalizer, splitter = library.normalizer, library.pre_tokenizer
        assert normalizer is not None
        assert splitter is not None
        found, counts = np.unique(codes(texts), return_counts=True)
        counted = {chr(code): int(count) for code, count in zip(found, counts, strict=True)}
        alphabet, pieces = list[str](), list[str]()
        for character in commonest(counted, len(counted)):
            if normalizer.normalize_str(character).strip() != character:
                continue  # white space and control characters
            inside = len(splitter.pre_tokenize_str(normalizer.normalize_str(f"a{character}a"))) == 1
            more = [character, f"##{character}"] if inside else [character]
            if len(pieces) + len(more) > max(2, size // 2):
                break
            alphabet.append(character)
            pieces += more
        return alphabet, pieces


class SentencePieces(Tokenizer):
    """SentencePiece's unigram model; a character that it does not know is spelled in bytes.

    Kudo, "Subword regularization", 2018; Kudo and Richardson, "SentencePiece", 2018. The character U+2581 stands for
    the space, and so comes back as one.
    """

    def __init__(self, model: bytes) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise MissingExtraError("sentencepiece", "text", purpose="this tokenizer") from None
        self.model = model
        try:
            self.processor: Any = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise RunError(f"a SentencePiece model cannot be read back: {error}") from error
        self.size = int(self.processor.get_piece_size())

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        try:
            from sentencepiece import SentencePieceTrainer
        except ImportError:
            raise MissingExtraError("sentencepiece", "text", purpose="this tokenizer") from None
        lines = (line for text in texts for line in text.replace("\0", "\n").splitlines() if line)
        sentences = [line[start : start + LINE] for line in lines for start in range(0, len(line), LINE)]
        model: Any = io.BytesIO()
        trainer: Any = SentencePieceTrainer
        try:
            trainer.train(
                sentence_iterator=iter(sentences or [" "]),
                model_writer=model,
                model_type="unigram",
                vocab_size=plan.size,
                hard_vocab_limit=False,  # a small table gives fewer pieces
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                num_threads=1,  # sums over more would be another in the last digits
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(
                f"SentencePiece cannot be trained with {plan.size} pieces: {error}",
                place="a column of type text",
                mend="Raise the setting 'vocabulary', or take the tokenizer bpe.",
            ) from error
        return cls(model.getvalue())

    def encode(self, texts: Sequence[str]) -> Ids:
        return flat(self.processor.encode(list(texts), num_threads=1))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.processor.decode(list(ids))).replace("▁", " ")

    def piece(self, token: int) -> str:
        return str(self.processor.id_to_piece(token)).replace("▁", " ")

    def state(self) -> dict[str, Any]:
        return {"model": base64.b64encode(self.model).decode()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls(base64.b64decode(state["model"]))
