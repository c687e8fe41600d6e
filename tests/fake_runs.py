"""Sweeps at scale `smoke` that train nothing."""

import pathlib

from physlm.experiments import evaluation, files, hosts, registry, results, run, sweep

STUDY = registry.load("studies.rates")
VIEW = f"{STUDY.name}-smoke"


class FakeRuns:
    """Stands in for training and judging: counts both, and fails to train where it is told to."""

    def __init__(self, failing=(), error=None):
        self.trained, self.judged, self.failing = [], [], failing
        self.error = error or RuntimeError("out of memory\nin the fourth layer")

    def __call__(self, group, store):
        for task in group:
            directory = store.of_run(task.run.name)
            try:
                self.train(task.run, directory)
            except Exception as error:
                hosts.record_failure(directory, error)
                yield task.run, error
                continue
            for one in task.evaluations:
                self.judge(task.run, one, directory)
            yield task.run, None

    def train(self, planned, directory):
        if run.status(directory) == "finished":
            return
        directory.mkdir(exist_ok=True)
        if (rate := planned.settings.mistakes.rate) in self.failing:
            raise self.error
        self.trained.append(rate)
        files.write_json(directory / run.CONFIG_FILE, planned.config)
        run.finish(directory, planned.settings.train.steps, 1.0)

    def judge(self, planned, one, directory):
        path = evaluation.result_of(directory, one.config)
        if path.exists():
            return
        rate, step = planned.settings.mistakes.rate, planned.settings.train.steps
        self.judged.append((rate, one.settings.problems))
        shares = {"accuracy": rate, "answer_accuracy": rate, "ci_low": 0.0, "ci_high": 1.0}
        cell = {"cell": "4", "op": 4, "n": 9, **shares, "retries": 0, "unnecessary": 0}
        result = {
            "run": planned.name,
            "evaluation": path.parent.name,
            "seed": planned.settings.seed,
            "step": step,
            "tokens": planned.tokens,
            "cells": [cell],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path.parent / run.CONFIG_FILE, {"step": step, **one.config})
        files.write_json(path, result)


def main(workdir, *arguments, study=STUDY.name, scale="smoke", execute=None):
    command = [study, "--scale", scale, "--workdir", str(workdir), *arguments]
    return sweep.main(command, execute or FakeRuns())


def rows_in(workdir, study=VIEW):
    return results.read(workdir / study / results.FILE)


def times(directory):
    directory = pathlib.Path(directory)
    return {path: path.stat().st_mtime_ns for path in [directory, *directory.rglob("*")]}
