"""Frozen sets in files: what `sample` prints, whole, and read by those they are for."""

import dataclasses
import io
import json
import pathlib
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import data_gen
from data_gen.__main__ import main
from data_gen.frozen import files, rows
from data_gen.problems.template import templates
from data_gen.spec import Spec
from data_gen.windows import stream
from physlm import cells

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.slow

TINY = [
    "--set", "max_op=3", "max_edges=4", "max_depth=2", "max_width=2", "modulus=5",
    "hierarchies=2", "subcategories=2", "names=4", "letters=8",
]  # fmt: skip
SPEC = Spec(**{name: int(value) for name, value in (text.split("=") for text in TINY[1:])})
MISTAKES = ["--mistakes", "retry", "--rate", "0.5", "--types"]
# More than are made at once, than a group and than a file of the tests have.
COUNT, TEST = 300, 40
SIZES = {"FILE_ROWS": 128, "GROUP_ROWS": 50}


def printed(*arguments):
    """What `sample` prints of problems of seed 3."""
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        assert main(["sample", "--seed", "3", *arguments, *TINY]) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def freeze(out, *arguments):
    """Freezes problems of seed 3, in small files."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(files, name, size)
        return main(["freeze", "--seed", "3", "--out", str(out), *arguments, *TINY])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Both formats of problems with mistakes, and both of a training and a test set."""
    found = {}
    for format in files.FORMATS:
        place = tmp_path_factory.mktemp("sets")
        one, two = place / "new" / "mended", place / "split"
        assert freeze(one, "--count", str(COUNT), "--format", format, *MISTAKES) == 0
        two.mkdir()
        counts = ["--count", str(COUNT), "--test", str(TEST)]
        assert freeze(two, *counts, "--format", format) == 0
        found[format] = (one, two)
        assert sorted(path.name for path in place.iterdir()) == ["new", "split"]
    return found


@pytest.fixture(scope="module")
def expected():
    """The rows of the two sets by split, from `sample`."""
    train = printed("--split", "train", "--count", str(COUNT))
    test = printed("--split", "test", "--count", str(TEST))
    return {"train": printed("--count", str(COUNT), *MISTAKES)}, {"train": train, "test": test}


def read(path):
    """The rows of one file, layers as lists."""
    if path.suffix == ".parquet":
        found = pq.read_table(path).to_pylist()
    else:
        found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**row, "layers": json.loads(row["layers"])} for row in found]


def parts(directory, split):
    return sorted((directory / "data").glob(f"{split}-*"))


@pytest.mark.parametrize("format", files.FORMATS)
@pytest.mark.parametrize("which", [0, 1], ids=["with mistakes", "split"])
def test_rows_are_what_sample_prints(sets, expected, format, which):
    directory, wanted = sets[format][which], expected[which]
    names = {path.name for path in (directory / "data").iterdir()}
    assert names == {path.name for split in wanted for path in parts(directory, split)}
    for split, records in wanted.items():
        paths = parts(directory, split)
        assert [row for path in paths for row in read(path)] == records
        assert [len(read(path)) for path in paths] == {COUNT: [128, 128, 44], TEST: [40]}[
            len(records)
        ]
        total = len(paths)
        assert [path.name for path in paths] == [
            f"{split}-{n:05d}-of-{total:05d}.{format}" for n in range(total)
        ]
    assert sum(map(len, wanted.values())) == len({r["id"] for rs in wanted.values() for r in rs})
    assert any(record["mended"] for record in expected[0]["train"])


def test_no_more_than_a_group_is_in_memory(sets):
    paths = parts(sets["parquet"][0], "train")
    found = [pq.read_metadata(path) for path in paths]
    sizes = [[each.row_group(n).num_rows for n in range(each.num_row_groups)] for each in found]
    assert sizes == [[50, 50, 28], [50, 50, 28], [44]]


def test_splits_have_no_template_in_common(expected):
    contents = rows.Contents(SPEC, 3, {"train": COUNT, "test": TEST})
    found = {split: list(rows.chosen(contents, split)) for split in contents.counts}
    hashed = {
        split: {
            int(n)
            for batch, chosen_K in batches
            for n in np.asarray(templates(batch.problems_N, SPEC).hashed)[chosen_K]
        }
        for split, batches in found.items()
    }
    assert min(map(len, hashed.values())) > 1 and not hashed["train"] & hashed["test"]
    texts = [row["problem"] for row in rows.texts(contents, "test")]
    assert texts == [record["problem"] for record in expected[1]["test"]]


@pytest.mark.parametrize("number", [0, 1], ids=["up to the cap", "of a fixed number"])
def test_tests_are_what_models_are_judged_on(number, expected):
    config = cells.EvalConfig(problems=TEST, seed=3, beyond=())
    cell = cells.of(SPEC, config)[number]
    tests = cells.test_set(cell, cells.test_spec(SPEC, config), config, 1000)
    spec = dataclasses.replace(SPEC, op=cell.op) if cell.fixed else SPEC
    made = rows.texts(rows.Contents(spec, 3, {"test": TEST}), "test")
    for row, record in zip(made, tests.records, strict=True):
        assert {**row, "layers": json.loads(row["layers"])} == {"id": row["id"], **record}


def test_check_reads_what_freeze_writes(sets, capsys):
    path = parts(sets["jsonl"][0], "train")[0]
    assert main(["check", "--modulus", "5", "--types", str(path)]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [verdict["correct"] for verdict in verdicts] == [True] * 128
    assert [verdict["mended"] for verdict in verdicts] == [row["mended"] for row in read(path)]


@pytest.mark.parametrize("format", files.FORMATS)
def test_hugging_face_datasets_reads_every_row(sets, expected, format, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the extra `parity` is not installed")
    for directory, wanted in zip(sets[format], expected, strict=True):
        found = datasets.load_dataset(str(directory), cache_dir=str(tmp_path))
        assert {split: len(found[split]) for split in found} == {
            split: len(records) for split, records in wanted.items()
        }
        for split, records in wanted.items():
            loaded = [{**row, "layers": json.loads(row["layers"])} for row in found[split]]
            assert loaded == records
        assert found["train"].features["op"].dtype == "int32"


def card(directory):
    """The front matter and the text of a card."""
    _, front, text = (directory / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize("format", files.FORMATS)
def test_the_card_describes_the_files_beside_it(sets, format):
    for directory in sets[format]:
        front, _ = card(directory)
        assert (front["license"], front["size_categories"]) == ("apache-2.0", ["n<1K"])
        (config,) = front["configs"]
        named = {
            each["split"]: sorted(directory.glob(each["path"])) for each in config["data_files"]
        }
        assert named == {split: parts(directory, split) for split in named}
        assert sum(map(len, named.values())) == len(list((directory / "data").iterdir()))
        columns = [each["name"] for each in front["dataset_info"]["features"]]
        assert columns == list(read(named["train"][0])[0])


@pytest.mark.parametrize(("format", "which"), [("jsonl", 0), ("parquet", 1)])
def test_the_command_of_a_card_makes_the_same_bytes(sets, format, which, tmp_path):
    directory = sets[format][which]
    _, text = card(directory)
    command = shlex.split(text.split("```bash\n")[1].split("\n```")[0])
    assert command[:4] == ["python", "-m", "data_gen", "freeze"]
    assert command[-2:] == ["--out", "DIR"]
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(files, name, size)
        assert main([*command[3:-1], str(tmp_path / "again")]) == 0
    for path in directory.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(directory)).read_bytes() == path.read_bytes()


def test_the_card_says_what_is_in_the_problems(sets):
    _, mended = card(sets["parquet"][0])
    _, split = card(sets["parquet"][1])
    assert "`kind=retry`, `rate=0.5`" in mended and "no mistakes" not in mended
    assert "Solutions have no mistakes in them." in split and "`modulus=5`" in split
    assert "| `train` | 300 | of any template |" in mended
    assert "| `test` | 40 | of the templates that are withheld from training |" in split


def test_it_says_how_far_it_is_and_what_there_is(tmp_path, capsys):
    assert freeze(tmp_path / "set", "--count", str(COUNT)) == 0
    said = capsys.readouterr()
    assert f"100%, {COUNT} of {COUNT} rows" in said.err
    assert f"{tmp_path / 'set'}: train {COUNT} rows, 0.2 MiB in 3 files." in said.out


def broken(monkeypatch):
    """Files that lose a row."""
    lossy = files.FORMATS["jsonl"]._replace(count=lambda path: 127)
    monkeypatch.setitem(files.FORMATS, "jsonl", lossy)
    return 2, "train-00000-of-00003.jsonl holds 127 rows instead of 128.\n"


def stopped(monkeypatch):
    """Someone presses Ctrl-C when some rows have been written."""
    whole = rows.texts

    def some(*arguments, **settings):
        for n, row in enumerate(whole(*arguments, **settings)):
            if n == 150:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(rows, "texts", some)
    return 130, ""


@pytest.mark.parametrize("way", [broken, stopped])
@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_nothing_behind(way, there, tmp_path, monkeypatch, capsys):
    code, said = way(monkeypatch)
    place = tmp_path / "a" / "set"
    if there:
        place.mkdir(parents=True)
    assert freeze(place, "--count", str(COUNT)) == code
    assert capsys.readouterr().err.endswith(said)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == (["a", "a/set"] if there else [])


def test_what_others_wrote_in_the_meantime_stays(tmp_path, monkeypatch, capsys):
    whole, place = files.write, tmp_path / "set"

    def late(*arguments, **settings):
        place.mkdir()
        (place / "mine").write_text("mine")
        return whole(*arguments, **settings)

    monkeypatch.setattr(files, "write", late)
    assert freeze(place, "--count", "60") == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "csv"], "format is 'csv'; it must be one of jsonl, parquet, tfds."),
        (["--test", "5", "--split", "test"], "test is 5; it must be left out where split is 'te"),
        (["--test", "5", "--split", "all"], "test is 5; it must be left out where split is 'all'."),
        (["--format", "tfds", "--types"], "types is True; it must be left out: rows of format 'tf"),
        (["--format", "tfds", "--count", "65537"], "count is 65537; it must be a whole number in"),
        (["--format", "tfds", "--test", "65537"], "test is 65537; it must be a whole number in"),
        (["--mistakes", "retry", "--rate", "1"], "rate is 1.0; it must be a number"),
        (
            ["--names-file", "/nowhere.json"],
            "names_file is '/nowhere.json'; it must be a",
        ),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_made(
    arguments, said, tmp_path, monkeypatch, capsys
):
    if "tfds" in arguments:
        pytest.importorskip("data_gen.frozen.igsm", reason="the extra `datasets` is not installed")
    monkeypatch.setattr(stream, "problems", None)
    assert freeze(tmp_path / "set", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [("parquet", "pyarrow.parquet", "parquet"), ("tfds", "data_gen.frozen.igsm", "datasets")],
)
def test_a_missing_package_is_named_with_its_extra(
    format, package, extra, tmp_path, monkeypatch, capsys
):
    missing = "tensorflow_datasets" if format == "tfds" else package
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.delattr(data_gen.frozen, "igsm", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert freeze(tmp_path / "set", "--format", format) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"pip install -e '.[{extra}]'.\n") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream, "problems", None)
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    for path in (full / "mine", file):
        path.write_text("mine")
    for place in (full, file, full / "mine", full / ".."):
        assert freeze(place) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            f"out is {str(place)!r}; it must be a directory that does not exist"
        )
        assert error.count("\n") == 1
    assert (full / "mine").read_text() == file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--test", "0"], []])
def test_bad_arguments_exit_with_2(arguments, tmp_path, capsys):
    out = ["--out", str(tmp_path / "set")] if arguments else []
    with pytest.raises(SystemExit) as stopped:
        main(["freeze", *arguments, *out])
    assert stopped.value.code == 2
    assert not list(tmp_path.iterdir())


BY_NAME = """
import json, sys
import data_gen.frozen.igsm
import tensorflow_datasets as tfds

from data_gen.spec import NAMED

found = tfds.builder("igsm/med", data_dir=sys.argv[1])
configs = found.builder_configs
assert {name: configs[name].spec for name in NAMED} == NAMED
assert found.builder_config is configs["med"] and type(found) is data_gen.frozen.igsm.Igsm
source = tfds.data_source(sys.argv[2], data_dir=sys.argv[1], split="train")
texts = ("id", "layers", "problem", "question", "solution")
rows = [{**{name: row[name].decode() for name in texts},
         "answer": int(row["answer"]), "op": int(row["op"])} for row in source]
print(json.dumps([data_gen.__file__, "tensorflow" in sys.modules, rows]))
"""


def test_tfds_finds_the_set_by_name_from_another_place(expected, tmp_path, capsys):
    """In an interpreter of its own, with the package as a wheel would put it."""
    pytest.importorskip("data_gen.frozen.igsm", reason="the extra `datasets` is not installed")
    out = tmp_path / "sets"
    assert freeze(out, "--count", str(COUNT), "--format", "tfds", *MISTAKES[:-1]) == 0
    said = capsys.readouterr().out
    name = said.split("tfds.data_source('")[1].split("'")[0]
    assert f"{out}: train {COUNT} rows. " in said and name.startswith("igsm/custom_")
    package = pathlib.Path(data_gen.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "site" / "data_gen", ignore=ignored)
    script = [sys.executable, "-c", BY_NAME, str(out), name]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, tensorflow, found = json.loads(done.stdout)
    assert where.startswith(str(tmp_path)) and not tensorflow
    wanted, _ = expected
    for row, record in zip(found, wanted["train"], strict=True):
        prefix, _, number = row["id"].rpartition("-")
        assert (prefix, number) == (f"{name.split('/')[1]}-3", record["id"].rpartition("-")[2])
        kept = {key: record[key] for key in row if key != "id"}
        assert {**row, "layers": json.loads(row["layers"]), "id": None} == {**kept, "id": None}
