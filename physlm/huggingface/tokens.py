"""A class's tokenizer as Hugging Face reads it, from text to ids and back.

Pieces of text are tokens as they stand, so that the longest piece that fits is the next token. A
parameter reads otherwise in a question than elsewhere and is one token in both places; what stands
in a question is rewritten before it is looked up, and back after it has been read.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_gen.solutions.grammar import MARKERS
from data_gen.spec import Spec
from data_gen.windows import gpt2
from data_gen.windows.table import Tokenizer
from data_gen.windows.tokenizer import tokenizer

if TYPE_CHECKING:
    import tokenizers


def fast(spec: Spec) -> "tokenizers.Tokenizer":
    """The tokenizer of a class, of the library `tokenizers`.

    Raises:
      ValueError: two tokens have the same text, or a token has none.
    """
    table = tokenizer(spec)
    if spec.tokenizer == "gpt2":
        return _byte_pairs(table, spec)
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    ids: dict[str, int] = {}
    for number, piece in enumerate(table.pieces):
        text = piece.decode()
        if not text or text in ids:
            why = "has no text" if not text else f"has the text of token {ids[text]}, {text!r}"
            raise ValueError(f"token {number} of the vocabulary {why}: no tokenizer can hold it.")
        ids[text] = number
    # Without an unknown token, a text that is none of this class is an error and no guess.
    made = Tokenizer(models.WordLevel(ids))
    special = [piece for piece in ids if piece in MARKERS]
    made.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    plain = [text for text in ids if text not in MARKERS]
    made.add_tokens([AddedToken(text, normalized=True) for text in plain])
    rewritten = list(_questions(table))
    if rewritten:
        made.normalizer = normalizers.Sequence(
            [normalizers.Replace(asked, named) for named, asked in rewritten]
        )
    made.decoder = decoders.Sequence(
        [decoders.Fuse(), *(decoders.Replace(named, asked) for named, asked in rewritten)]
    )
    return made


def _questions(table: Tokenizer) -> Sequence[tuple[str, str]]:
    """How each parameter would read after the words that begin a question, and how it does."""
    if table.joined is None:
        return ()
    opening = table.pieces[table.joined.opening].decode()
    return [
        (opening + table.pieces[i].decode(), opening + asked.decode())
        for i, asked in table.joined.asked.items()
    ]


def _byte_pairs(table: Tokenizer, spec: Spec) -> "tokenizers.Tokenizer":
    """GPT-2's own, in which the ids of the markers are the markers."""
    from tokenizers import AddedToken, Tokenizer, decoders

    content = json.loads(gpt2.backend(spec.tokenizer_files).to_str())
    model = content["model"]
    ids = (table.problem, table.solution, table.answer, table.end)
    taken = {text for text, i in model["vocab"].items() if i in ids[:-1]}
    markers = {i: table.pieces[i].decode() for i in ids}
    model["vocab"] = {markers.get(i, text): i for text, i in model["vocab"].items()}
    model["vocab"] |= {text: i for i, text in markers.items()}
    # The bytes whose ids are markers now can no longer be merged; no text of a problem has them.
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    model["merges"] = [pair for pair in pairs if not taken & set("".join(pair))]
    content["added_tokens"] = []
    made = Tokenizer.from_str(json.dumps(content))
    made.add_special_tokens([AddedToken(text, normalized=False) for text in markers.values()])
    made.decoder = decoders.ByteLevel()
    return made


def write(spec: Spec, directory: pathlib.Path) -> dict[str, Any]:
    """Writes the files that `AutoTokenizer` reads.

    Returns:
      The ids that the model's configuration is to hold: the end of a text, and padding.

    Raises:
      ValueError: as `fast`.
    """
    from transformers import PreTrainedTokenizerFast

    table = tokenizer(spec)
    end = table.pieces[table.end].decode()
    PreTrainedTokenizerFast(
        tokenizer_object=fast(spec),
        eos_token=end,
        pad_token=end,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)
    return {"eos_token_id": table.end, "pad_token_id": table.end}
