"""Writes directories of frozen sets, each complete or not at all."""

import contextlib
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_gen import settings
from data_gen.frozen import card, files, rows
from data_gen.frozen.files import Row
from data_gen.frozen.rows import Contents
from data_gen.settings import RefusedError

TFDS = "tfds"
FORMATS = (*files.FORMATS, TFDS)

# Between two lines about how far it is, where they are no bar on a terminal.
_SECONDS_BETWEEN_LINES = 10.0


class Order(NamedTuple):
    """The specification of a set to write.

    Attributes:
      contents: what it holds.
      format: of `FORMATS`.
      types: whether rows say what kind each mistake is of, in a field `mended`.
      command: what makes it, for its card.
    """

    contents: Contents
    format: str
    types: bool
    command: str


def write(order: Order, out: str | Path) -> str:
    """Writes a set to a directory of its own.

    It is made in a hidden directory beside `out`, which is then renamed, so that there is a whole
    set or none. How far it is is shown on standard error.

    Args:
      order: the set.
      out: a directory that does not exist, or is empty.

    Returns:
      What there is now, and how it is read.

    Raises:
      ValueError: the set is not possible, a package is missing, or there is something at `out`.
      OSError: it cannot be written, or rows are missing in what was.
    """
    _check(order)
    place = Path(out).resolve()
    _check_place(place, out)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    parents = [parent for parent in place.parents if not parent.exists()]
    draft.mkdir(parents=True)
    try:
        with _Bar(sum(order.contents.counts.values())) as bar:
            said = _fill(draft, place, order, bar.report)
        os.replace(draft, place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        _remove_empty(parents)
        raise
    return said


def _check(order: Order) -> None:
    if order.format not in FORMATS:
        raise RefusedError("format", order.format, f"one of {', '.join(FORMATS)}")
    if order.format != TFDS:
        files.check(order.format)
        return
    if order.types:
        raise RefusedError("types", order.types, "left out: rows of format 'tfds' have no `mended`")
    try:
        from data_gen.frozen import igsm
    except ImportError as error:
        raise ValueError(str(error)) from error
    counts = order.contents.counts
    for split, count in counts.items():
        field = "test" if split == "test" and len(counts) > 1 else "count"
        settings.check_whole(field, count, 1, igsm.ROWS_LIMIT)


def _check_place(place: Path, out: str | Path) -> None:
    free = not place.exists() or (place.is_dir() and not any(place.iterdir()))
    # What is mounted, or where the caller stands, cannot be put in another's place.
    if not free or os.path.ismount(place) or place == Path.cwd():
        allowed = "a directory that does not exist yet, or is empty and not the current one"
        raise RefusedError("out", str(out), allowed)


def _remove_empty(directories: Iterable[Path]) -> None:
    for directory in directories:
        if any(directory.iterdir()):
            return
        directory.rmdir()


class _Bar(tqdm):
    """Progress in rows: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, total: int) -> None:
        terminal, size = sys.stderr.isatty(), shutil.get_terminal_size()
        line = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt} rows, {remaining} left\n"
        super().__init__(
            desc="freeze",
            total=total,
            unit="row",
            mininterval=0.1 if terminal else _SECONDS_BETWEEN_LINES,
            bar_format=None if terminal else line,
            # Some terminals report a size of 0, which tqdm would believe; `shutil` has a default.
            ncols=size.columns,
            nrows=size.lines,
        )

    def report(self, made: int) -> None:
        """Reports rows that have been generated."""
        if self.n == 0:
            # What is left is judged by the time that rows take, not by compilation.
            self.unpause()
        self.update(made)


def _fill(draft: Path, place: Path, order: Order, report: Callable[[int], object]) -> str:
    if order.format == TFDS:
        return _fill_tfds(draft, place, order.contents, report)
    said = []
    for split, count in order.contents.counts.items():
        label = rows.label(split)
        made = rows.texts(order.contents, split, types=order.types)
        paths = files.write(
            _counted(made, report),
            draft,
            split=label,
            count=count,
            format=order.format,
            types=order.types,
        )
        files_or_file = "file" if len(paths) == 1 else "files"
        size = sum(path.stat().st_size for path in paths) / 2**20
        said.append(f"{label} {count:,} rows, {size:,.1f} MiB in {len(paths)} {files_or_file}")
    contents = order.contents
    text = card.text(contents, format=order.format, types=order.types, command=order.command)
    (draft / "README.md").write_text(text, encoding="utf-8")
    return f"{place}: {'; '.join(said)}. datasets.load_dataset({str(place)!r}) reads it."


def _counted(made: Iterator[Row], report: Callable[[int], object]) -> Iterator[Row]:
    for row in made:
        report(1)
        yield row


def _fill_tfds(
    draft: Path, place: Path, contents: Contents, report: Callable[[int], object]
) -> str:
    from data_gen.frozen import igsm

    with _quiet():
        builder = igsm.build(
            contents.spec,
            seed=contents.seed,
            counts=contents.counts,
            directory=draft,
            mistakes=contents.mistakes,
            report=report,
        )
    # Empty: nothing is downloaded.
    shutil.rmtree(draft / "downloads", ignore_errors=True)
    found = {split: len(source) for split, source in igsm.load(builder.data_dir).items()}
    wanted = {rows.label(split): count for split, count in contents.counts.items()}
    if found != wanted:
        raise OSError(f"the set holds {found} rows instead of {wanted}.")
    name = f"{builder.name}/{builder.builder_config.name}"
    said = "; ".join(f"{split} {count:,} rows" for split, count in found.items())
    return f"{place}: {said}. tfds.data_source({name!r}, data_dir={str(place)!r}) reads it."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS keeps to itself what it makes, and where; its own bars know no total."""
    import tensorflow_datasets as tfds

    logger = logging.getLogger("absl")
    level = logger.level
    tfds.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tfds.enable_progress_bar()
