"""A probe in PyTorch alone, from exported files: what can be computed next?

    python -m physlm.export runs/models/RUN --out model
    python -m physlm.export runs/models/PROBE --out probe --plain safetensors
    python -m data_gen sample … > problem.jsonl
    python experiments/examples/probe_in_pytorch.py model probe problem.jsonl

PROBE is a probe of RUN for the task can_next. Problems have to be of the model's class; the command
for such is written out in model/README.md. For each problem, after each sentence of its solution, a
line says of every parameter that the solution computes how likely the model takes it to be next.
Needs torch, transformers and safetensors; neither JAX nor physlm.
"""

import json
import pathlib
import re
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(model_dir: str, probe_dir: str, problems: str) -> None:
    """Prints what the probe says."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(model_dir, trust_remote_code=True).eval()
    probe = load_file(pathlib.Path(probe_dir) / "params.safetensors")
    # The probe's model differs from the run's by a low-rank change of the embedding alone, which a
    # probe with reads=frozen makes in its questions only: their tokens are made others here.
    adapted = probe["embed/embedding"]
    of_text = probe.get("document/embed/embedding", adapted)
    model.get_input_embeddings().weight.data = torch.cat([of_text, adapted])

    @torch.no_grad()
    def can_next(prefix: str, name: str) -> float:
        question = tokenizer(f"<|answer|> {name}<|end|>")["input_ids"]
        ids = [*tokenizer(prefix)["input_ids"], *(i + len(of_text) for i in question)]
        tokens = torch.tensor([ids])
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states
        logits = states[-1][0, -1] @ probe["probe/kernel"] + probe["probe/bias"]
        return logits.softmax(-1)[1].item()

    for line in pathlib.Path(problems).read_text().splitlines():
        record = json.loads(line)
        prompt = f"<|problem|>{record['problem']}{record['question']}<|solution|>"
        sentences = re.findall(r"[^.]+\.", record["solution"])
        names = list(dict.fromkeys(re.findall(r"Define (.+?) as ", record["solution"])))
        for done in range(len(sentences) + 1):
            prefix = prompt + "".join(sentences[:done])
            said = {name: round(can_next(prefix, name), 4) for name in names}
            print(json.dumps({"id": record["id"], "after": done, "can_next": said}))


if __name__ == "__main__":
    main(*sys.argv[1:])
