"""Frozen sets: what is read is what the sampler makes, and a second build is the same."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn import ERROR_FREE, ROOM, TINY

from data_gen import keys
from data_gen.frozen import rows as rows_lib
from data_gen.keys import Purpose
from data_gen.spec import HARD, Spec
from data_gen.text import records
from data_gen.windows import stream

WHY = "the extra `datasets` is not installed"
for needed in ("tensorflow_datasets", "array_record", "importlib_resources"):
    pytest.importorskip(needed, reason=WHY)
grain = pytest.importorskip("grain", reason=WHY)

from data_gen.frozen import igsm  # noqa: E402

pytestmark = pytest.mark.slow

SEED = 5
COUNTS = {"train": 24, "test": 40}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return igsm.build(TINY, seed=SEED, counts=COUNTS, directory=tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def rows(built):
    return igsm.load(built.data_dir)


def sampled(split):
    """The same problems without the module under test but for its keys' purposes."""
    spec = dataclasses.replace(TINY, split=split)
    purpose = {"train": Purpose.FROZEN, "test": Purpose.TESTING}[split]
    root = keys.numbered(keys.root(SEED, purpose), 0)
    keys_N = keys.all_numbered(root, np.arange(rows_lib.BATCH))
    problems = stream.problems(keys_N, spec=spec)
    write = jax.jit(stream.documents, static_argnames=("size", "spec", "mistakes"))
    documents = write(keys_N, problems, size=ROOM, spec=spec, mistakes=ERROR_FREE)
    problems, documents = jax.tree.map(np.asarray, (problems, documents))
    return documents, records.records(problems, documents, spec)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_what_the_sampler_makes_of_the_keys(built, rows, split):
    documents, found = sampled(split)
    assert len(rows[split]) == COUNTS[split]
    for n in range(COUNTS[split]):
        row, record = rows[split][n], found[n]
        assert row["id"].decode() == f"{built.builder_config.name}-{SEED}-{split}-{n}"
        for name in ("problem", "question", "solution"):
            assert row[name].decode() == record[name]
        assert json.loads(row["layers"]) == record["layers"]
        assert (row["op"], row["answer"]) == (record["op"], record["answer"])
        assert row["tokens"].dtype == np.int32
        assert np.array_equal(row["tokens"], documents.tokens_N[n, : documents.length[n]])
        assert row["prompt_length"] == documents.prompt[n]
        assert row["shared"] == (split == "train")


def test_training_rows_are_not_those_of_the_stream():
    assert Purpose.TRAINING not in rows_lib.PURPOSES.values()


def test_the_metadata_say_what_was_built_and_how_to_read_tokens(built, rows):
    said = json.loads((Path(built.data_dir) / "metadata.json").read_text())
    assert Spec(**said["spec"]) == TINY
    assert (said["seed"], said["counts"]) == (SEED, COUNTS)
    row = rows["test"][3]
    text = "".join(said["vocabulary"][n] for n in row["tokens"][row["prompt_length"] :])
    assert text == f"{row['solution'].decode()}<|answer|> {row['answer']}<|end|>"


def test_grain_reads_every_row_once_in_an_epoch(rows):
    dataset = grain.MapDataset.source(rows["test"]).seed(0).shuffle()
    shuffled = [row["id"] for row in dataset]
    in_order = [rows["test"][n]["id"] for n in range(COUNTS["test"])]
    assert sorted(shuffled) == sorted(in_order) and shuffled != in_order


def files(builder):
    return {path.name: path.read_bytes() for path in sorted(Path(builder.data_dir).iterdir())}


def test_a_second_build_has_the_same_bytes(built, tmp_path):
    first = files(built)
    again = igsm.build(TINY, seed=SEED, counts=COUNTS, directory=tmp_path)
    assert Path(again.data_dir) != Path(built.data_dir)
    assert any("array_record" in name for name in first)
    assert files(again) == first


def test_sets_of_other_settings_lie_side_by_side(built):
    names = {
        igsm.IgsmConfig(name="one", spec=spec, seed=seed, counts=counts).named().name
        for spec in (TINY, dataclasses.replace(TINY, modulus=7))
        for seed in (0, 1)
        for counts in (COUNTS, {"test": 40})
    }
    assert len(names) == 8


def test_the_published_sets_have_names():
    published = {config.name: config for config in igsm.Igsm.BUILDER_CONFIGS}
    ops = {name: config.spec.op for name, config in published.items()}
    assert ops == {
        "med": None, "med_op20": 20, "med_op21": 21, "med_op22": 22, "med_op23": 23,
        "hard": None, "hard_op28": 28, "hard_op30": 30, "hard_op32": 32,
    }  # fmt: skip
    assert dataclasses.replace(published["hard_op30"].spec, op=None) == HARD
    config = published["hard_op30"]
    same = igsm.IgsmConfig(name="x", spec=config.spec, seed=0, counts=dict(config.counts))
    assert same.named() is config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": {}}, r"counts is \{\}; it must be rows for train"),
        ({"counts": {"valid": 3}}, "rows for train, test or both"),
        ({"counts": {"test": 0}}, r"counts\['test'\] is 0; it must be a whole number in 1..65536"),
        ({"seed": -1}, "seed is -1; it must be a whole number in 0..2147483647"),
        ({"spec": dataclasses.replace(TINY, split="train")}, "split is 'train'; it must be 'all'"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, said, tmp_path):
    settings = {"spec": TINY, "seed": 0, "counts": {"test": 1}, **changes}
    with pytest.raises(ValueError, match=said):
        igsm.build(settings.pop("spec"), **settings, directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_formats_that_lose_rows_are_refused(tmp_path):
    builder = igsm.Igsm(config="med_op20", data_dir=str(tmp_path), file_format="parquet")
    with pytest.raises(ValueError, match="file_format is 'parquet'; it must be 'array_record'"):
        builder.download_and_prepare()


def test_a_directory_without_a_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no frozen set"):
        igsm.load(tmp_path)
