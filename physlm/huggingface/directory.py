"""Writes directories for Hugging Face's libraries: aside, checked by reading back, then moved.

Array names as in `physlm.model`, and N: problems.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.spec import Spec
from data_gen.windows.tokenizer import tokenizer
from physlm import model
from physlm.architecture import ModelConfig
from physlm.decoding import engine
from physlm.decoding.sampling import Greedy
from physlm.huggingface import mapping, remote, tokens

# The settings of the run, which `physlm.adopt` reads.
RUN_FILE = "physlm.json"

DTYPES = ("float32", "bfloat16")

# How far logits of the same weights may lie apart, and scores of two tokens that are as likely.
TOLERANCE = 1e-4

# As transformers divides files.
_SHARD = "5GB"


def need() -> None:
    """Raises ValueError where a library is not installed.

    Raises:
      ValueError: one is missing.
    """
    try:
        import safetensors
        import torch
        import transformers
    except ImportError as error:
        raise ValueError(
            f"the package {error.name} is missing: pip install 'physlm[export]'."
        ) from error
    del safetensors, torch, transformers


@contextlib.contextmanager
def fresh(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory beside `out` that becomes it where all goes well, and else is removed.

    Raises:
      ValueError: `out` is there and not empty, or its place cannot be written to.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out is {out}, which is not empty; it must be a new directory.")
    # The innermost first.
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        _remove_empty(missing)
        raise ValueError(f"--out is {out}, which cannot be written: {error.strerror}.") from error
    try:
        yield made
        _open_to_others(made)
        if out.exists():
            out.rmdir()
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _remove_empty(missing)


def _remove_empty(directories: Iterable[pathlib.Path]) -> None:
    for directory in directories:
        # There may be something in it, or it is not there.
        with contextlib.suppress(OSError):
            directory.rmdir()


def _open_to_others(directory: pathlib.Path) -> None:
    """Gives a directory and its files the modes that new ones have here.

    Temporary directories, and what safetensors writes, are their owner's alone.
    """
    umask = os.umask(0)
    os.umask(umask)
    directory.chmod(0o777 & ~umask)
    for path in directory.iterdir():
        path.chmod(0o666 & ~umask)


def rounded(params: model.Params, dtype: str) -> model.Params:
    """The parameters rounded to `dtype`, as float32."""
    return jax.tree.map(lambda x: jnp.asarray(x).astype(dtype).astype(jnp.float32), params)


def write(
    directory: pathlib.Path,
    config: ModelConfig,
    params: model.Params,
    spec: Spec,
    *,
    dtype: str,
    max_new_tokens: int,
    said: Mapping[str, Any],
) -> None:
    """Writes configuration, weights, tokenizer and, where it is ours, the model's code.

    Args:
      directory: an empty one.
      config: the model's configuration.
      params: its parameters.
      spec: the class whose texts it reads.
      dtype: of the weights in the file, one of `DTYPES`.
      max_new_tokens: that `generate` writes after a prompt at most.
      said: the settings of the run, as plain JSON data.

    Raises:
      ValueError: no tokenizer can hold the vocabulary.
    """
    import torch
    import transformers
    from huggingface_hub import save_torch_state_dict

    ids = tokens.write(spec, directory)
    content = mapping.hf_config(config) | ids | {"dtype": dtype}
    (directory / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    (directory / RUN_FILE).write_text(json.dumps(said, indent=2) + "\n")
    tensors = {
        name: torch.tensor(np.asarray(x)).to(getattr(torch, dtype))
        for name, x in mapping.state_dict(config, params).items()
        if not (config.tied and name == "lm_head.weight")
    }
    save_torch_state_dict(tensors, directory, max_shard_size=_SHARD, metadata={"format": "pt"})
    transformers.GenerationConfig(
        **ids, max_new_tokens=max_new_tokens, do_sample=False
    ).save_pretrained(directory)
    if mapping.is_own(config):
        code = pathlib.Path(remote.__file__).parent
        for module in ("configuration_physlm.py", "modeling_physlm.py"):
            shutil.copyfile(code / module, directory / module)


def check(
    directory: pathlib.Path,
    config: ModelConfig,
    params: model.Params,
    spec: Spec,
    prompts_NxP: np.ndarray,
    prompt_N: np.ndarray,
    *,
    max_new_tokens: int,
    base: pathlib.Path | None = None,
) -> float:
    """Reads the directory back with transformers, and compares what the models say.

    Args:
      directory: with what `write` has written.
      config: the model's configuration.
      params: its parameters, `rounded` as those in the file.
      spec: the class whose texts it reads.
      prompts_NxP: int32, prompts of test problems, padded on the right.
      prompt_N: int32, how many tokens each has.
      max_new_tokens: to write after them at most.
      base: where the directory holds adapters, that of the model which they change.

    Returns:
      The largest difference between logits, on the prompts and what is written after them.

    Raises:
      ValueError: logits differ by more than `TOLERANCE`, or texts where two tokens were not as
        likely; nobody should use what has been written.
    """
    import torch
    import transformers

    whole = base or directory
    loaded = _loaded(whole)
    if base is not None:
        import peft

        with warnings.catch_warnings():
            # PEFT asks transformers for what has another name there by now.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            loaded = peft.PeftModel.from_pretrained(loaded, directory).eval()
    read = transformers.AutoTokenizer.from_pretrained(whole, trust_remote_code=True)
    end = tokenizer(spec).end
    ours = engine.decode(
        config,
        params,
        prompts_NxP,
        prompt_N,
        strategy=Greedy(),
        max_new_tokens=max_new_tokens,
        stop=end,
    )
    texts = [
        [*prompt[:n].tolist(), *written[0, : length[0]].tolist()]
        for prompt, n, written, length in zip(
            prompts_NxP, prompt_N, ours.tokens_NxSxM, ours.length_NxS, strict=True
        )
    ]
    for text in texts:
        if read(read.decode(text))["input_ids"] != text:
            raise ValueError("the exported tokenizer reads a text otherwise than it was written.")
    room = max(map(len, texts))
    padded_NxL = np.array([text + [end] * (room - len(text)) for text in texts], np.int32)
    logits_NxLxV = np.asarray(jax.jit(model.apply, static_argnums=0)(config, params, padded_NxL))
    with torch.no_grad():
        theirs_NxLxV = loaded(torch.tensor(padded_NxL).long()).logits.float().numpy()
        inputs = read.pad(
            {"input_ids": [text[:n] for text, n in zip(texts, prompt_N.tolist(), strict=True)]},
            return_tensors="pt",
        )
        generated = loaded.generate(**inputs, max_new_tokens=max_new_tokens).numpy()
    real_NxL = np.arange(room) < np.array([*map(len, texts)])[:, None]
    farthest = float(np.abs(logits_NxLxV - theirs_NxLxV)[real_NxL].max())
    if not farthest <= TOLERANCE:
        raise ValueError(
            f"the exported model's logits differ by {farthest:.2g}, more than {TOLERANCE:g}: this "
            "is an error of physlm or of this version of transformers, and nothing was written."
        )
    width = inputs["input_ids"].shape[1]
    for text, n, theirs, logits_LxV in zip(
        texts, prompt_N.tolist(), generated[:, width:].tolist(), logits_NxLxV, strict=True
    ):
        want = text[n:]
        pairs = zip(want, [*theirs, *[end] * len(want)], strict=False)
        apart = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
        if apart is not None:
            first, second = np.sort(logits_LxV[n + apart - 1])[::-1][:2]
            if first - second > 2 * TOLERANCE:
                raise ValueError(
                    f"the exported model writes another text after {apart} tokens: this is an "
                    "error of physlm or of this version of transformers, and nothing was written."
                )
    return farthest


def _loaded(directory: pathlib.Path) -> Any:
    """The model of a directory in float32, which the code beside it may make."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, trust_remote_code=True, attn_implementation="eager"
    ).eval()
