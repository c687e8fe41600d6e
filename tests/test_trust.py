"""Nothing that is read runs code: checkpoints, configurations, lines, models of others; a page of
a model's text holds none of it as HTML."""

import json
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_runs import VIEW, main
from test_show import record

from physlm import adopt
from physlm.checkpoint import Checkpoints
from physlm.experiments import evaluate, results, show

pytestmark = pytest.mark.usefixtures("devices_stay")


class Trap:
    """As a pickle, it makes a file where it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def trap(tmp_path):
    """A file that is there as soon as code of what is read has run."""
    path = tmp_path / "trap"
    yield path
    assert not path.exists()


@pytest.fixture
def nothing_unpickled(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    load = np.load

    def plain(*arguments, allow_pickle=False, **settings):
        assert not allow_pickle
        return load(*arguments, **settings)

    monkeypatch.setattr(np, "load", plain)


@pytest.mark.usefixtures("nothing_unpickled")
def test_checkpoints_are_read_without_unpickling(tmp_path):
    state = {"w": jnp.arange(4.0)}
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(1, state, 0.5)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(tmp_path, 2) as checkpoints:
        read = checkpoints.restore(1, {"w": jax.ShapeDtypeStruct((4,), "float32", sharding=place)})
    assert read["w"].tolist() == [0, 1, 2, 3]


def test_pickles_in_a_checkpoint_are_no_arrays(tmp_path, trap):
    directory = tmp_path / "checkpoints"
    with Checkpoints(directory, 2) as checkpoints:
        checkpoints.save(1, {"w": jnp.arange(4.0)}, 0.5)
    for file in (directory / "1").rglob("*"):
        if file.is_file():
            file.write_bytes(pickle.dumps(Trap(trap)))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {"w": jax.ShapeDtypeStruct((4,), "float32", sharding=place)}
    with Checkpoints(directory, 2) as checkpoints:
        assert checkpoints.restore_latest(target) is None


@pytest.mark.usefixtures("nothing_unpickled")
def test_configurations_and_lines_are_values_and_not_expressions(tmp_path, trap, capsys):
    evil = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    assert main(tmp_path) == 0
    path = min((tmp_path / "models").glob("*/config.json"))
    whole = json.loads(path.read_text())
    for content in (evil, json.dumps(whole | {"seed": evil}), "!!python/object/apply:os.getcwd []"):
        path.write_text(content)
        capsys.readouterr()
        assert evaluate.main([str(path.parent)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    rows = tmp_path / VIEW / results.FILE
    rows.write_text(f"{evil}\n{json.dumps(evil)}\n")
    path.write_text(json.dumps(whole))
    assert main(tmp_path) == 0


def test_weights_of_others_are_safetensors_alone(tmp_path, trap):
    pytest.importorskip("safetensors")
    for name in ("pytorch_model.bin", "model.pt", "model.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(ValueError, match="only safetensors are read"):
        adopt._tensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        adopt._tensors(tmp_path)
    # Files are looked for in the directory, wherever its index says that they are.
    outside = json.dumps({"weight_map": {"a": "../../etc/passwd"}})
    (tmp_path / "model.safetensors.index.json").write_text(outside)
    with pytest.raises(ValueError, match="has no passwd; only safetensors are read"):
        adopt._tensors(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mistakes.kind", "lies.again"),
        ("mistakes.kind", "skip:0.5,lies.again:0.5"),
        ("evaluate.decode", "lies.Strategy:a=1"),
        ("train.records_decode", "lies.Strategy"),
    ],
)
def test_a_model_of_others_has_no_module_imported(tmp_path, trap, capsys, monkeypatch, key, value):
    """Neither one beside it nor one where the command is given, which Python would find."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    code = f"open({str(trap)!r}, 'w')"
    for name in ("lies.py", "modeling_lies.py"):
        (foreign / name).write_text(code)
    monkeypatch.chdir(foreign)
    monkeypatch.syspath_prepend(str(foreign))
    model = {"architectures": ["LliesForCausalLM"], "auto_map": {"AutoModel": "modeling_lies.A"}}
    (foreign / "config.json").write_text(json.dumps(model))
    section, _, name = key.partition(".")
    (foreign / "physlm.json").write_text(json.dumps({section: {name: value}}))
    store = tmp_path / "store"
    assert adopt.main([str(foreign), "--workdir", str(store)]) == 2
    error = capsys.readouterr().err
    assert f"has {key} = {value!r}, and lies." in error and error.count("\n") == 1
    # Without that its class is unknown, and its code is not looked at.
    (foreign / "physlm.json").unlink()
    assert adopt.main([str(foreign), "--workdir", str(store)]) == 2
    assert "architectures is 'LliesForCausalLM'" in capsys.readouterr().err
    assert not {"lies", "modeling_lies"} & {*sys.modules} and not store.exists()


@pytest.mark.parametrize("field", ["problem", "question", "written", "cell", "op", "reason"])
def test_no_text_of_a_record_is_taken_for_html(field):
    one = record("Define that. Go on.", " 2")
    one[field] = "<img src=x onerror=alert(1)> &amp; <b>"
    page = show.as_html(one)
    assert "<img" not in page and "<b> " not in page
    if field in page or field != "reason":
        assert "&lt;img src=x onerror=alert(1)&gt; &amp;amp; &lt;b&gt;" in page
