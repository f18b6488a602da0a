"""What `btkit explain` explains: a split of a run, or picture files; and the whole way from there to the folder."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.data.dataset import BadImage
from braintumor_kit.engines.engine import Engine
from braintumor_kit.engines.local import LocalEngine
from braintumor_kit.files import make_folder, write_json
from braintumor_kit.interrupts import interrupted
from braintumor_kit.locks import alone, beside
from braintumor_kit.memory import kept_memory
from braintumor_kit.model.precision import resolve_precision
from braintumor_kit.progress import Reporter, log_to
from braintumor_kit.registry import Registry
from braintumor_kit.runs import Run, find_run, fold_runs, table_of
from braintumor_kit.workflows.draw_explanations import draw_summary
from braintumor_kit.workflows.evaluate_explanations import Evaluation, evaluate_explanations
from braintumor_kit.workflows.explain import Batch, Drawing, Planned, Request, batches_of, grouped, plan, settings_of
from braintumor_kit.workflows.explain_work import Asked, Explaining
from braintumor_kit.workflows.explanation_folder import ExplanationFolder
from braintumor_kit.workflows.map_volumes import write_map_volumes
from braintumor_kit.workflows.own_data import own_data
from braintumor_kit.workflows.pictures import SplitPictures, evenly_spaced, split_name, split_pictures
from braintumor_kit.workflows.trained import Trained, refuse_onnx, trained_from_file, trained_of


@dataclass(frozen=True)
class Wish:
    """How explanations are made.

    Attributes:
        precision: of convolutions, "auto" is bfloat16 where the device computes it natively.
        drawing: of overlays.
        evaluation: how the maps are measured, None not to.
        to_go_on: what the user is told to do after an interruption.
    """

    precision: str = "auto"
    drawing: Drawing = field(default_factory=Drawing)
    evaluation: Evaluation | None = None
    to_go_on: str = "the same command goes on where it stopped"


def explain(
    place: Path,
    requests: Sequence[Request],
    wish: Wish,
    reporter: Reporter,
    engine: Engine | None = None,
    asked: Asked | None = None,
) -> tuple[dict[str, Any] | None, list[BadImage]]:
    """Makes the folder of explanations: maps, overlays, table, sheet and, where wished, how right the maps are.

    Args:
        engine: that works through the batches; None is this process.
        asked: makes the same requests in other processes; without it this one does everything.

    Returns:
        The content of `explanation_metrics.json` or None, and the pictures that could not be read.

    Raises:
        InputError: where a method, target or layer does not fit the model, or another process is at work there.
        WorkError: where files cannot be written.
    """
    planned = plan(requests, wish.precision, wish.drawing.align)
    if engine is None or asked is None:
        engine = LocalEngine(None, reporter)
    with alone(beside(place), place):
        reporter.say(f"explaining in {resolve_precision(wish.precision)} into {place}")
        try:
            return _explain(place, planned, wish, reporter, engine, asked)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or interrupted():
                reporter.say(f"interrupted; {wish.to_go_on}")
            raise


def _explain(
    place: Path,
    planned: Sequence[Planned],
    wish: Wish,
    reporter: Reporter,
    engine: Engine,
    asked: Asked | None,
) -> tuple[dict[str, Any] | None, list[BadImage]]:
    folder = ExplanationFolder.begin(place, settings_of(planned, wish.precision, wish.drawing))
    work = Explaining(folder.place, folder.beside, wish.precision, wish.drawing, asked, tuple(planned))
    with log_to(folder.beside) if asked else nullcontext():  # explanations of a run are told in the run's own log
        bad = _make_maps(folder, work, engine, reporter)
        if wish.drawing.style != "none":
            _draw_overlays(folder, work, engine, reporter)
        write_map_volumes(folder, planned, wish.drawing, reporter)
        metrics = None
        if wish.evaluation:
            metrics = evaluate_explanations(folder, planned, wish.precision, wish.evaluation, reporter)
            write_json(folder.beside / "explanation_metrics.json", metrics)
        draw_summary(folder, planned)
    folder.finish()
    return metrics, bad


def _make_maps(folder: ExplanationFolder, work: Explaining, engine: Engine, reporter: Reporter) -> list[BadImage]:
    """Makes the maps that an interrupted call with the same settings left; gives the pictures that cannot be read."""
    counts = [len(members[0].request.pictures.items) for members in grouped(work.planned)]
    todo: dict[Batch | str, int] = {
        batch: batch.stop - batch.start for batch in batches_of(counts) if not folder.has(batch.name)
    }
    done = sum(counts) - sum(todo.values())
    with reporter.bar("explaining") as progress, kept_memory(), folder.dropped_if_empty():
        for batch, _ in engine.each(work, list(todo)):
            done += todo[batch]
            progress(done, sum(counts))
    bad = {item["id"]: item["reason"] for batch in folder.batches() for item in batch["bad"]}
    return [BadImage(id, reason) for id, reason in bad.items()]


def _draw_overlays(folder: ExplanationFolder, work: Explaining, engine: Engine, reporter: Reporter) -> None:
    make_folder(folder.beside / "overlays", parents=False)
    names = folder.names()
    with reporter.bar("drawing") as progress:
        for done, _ in enumerate(engine.each(work, names), start=1):
            progress(done, len(names))


def own_pictures(
    argument: str | None, runs: Path, split: str | None, limit: int | None, registry: Registry, reporter: Reporter
) -> tuple[Run, list[tuple[Trained, SplitPictures]]]:
    """The run that RUN on the command line names, and its models, each with slices of the run's data set.

    Args:
        split: None is test, or validation where the run has no test.
        limit: at most so many slices in all, evenly spaced.

    Raises:
        InputError: where there is no such run or split, or the data are not at hand any more.
    """
    refuse_onnx(argument)
    if argument is not None and argument.endswith(".keras"):
        trained = trained_from_file(Path(argument), any_end=True)
        if trained.run is None:
            raise InputError(f"'{argument}' stands in no run, so it has no slices of its own: name images after it.")
        return trained.run, [(trained, _pictures(trained.run, trained, split, limit, registry, reporter))]
    run = find_run(argument, runs, folds=True)
    if run.folds is None:
        trained = trained_of(run)
        return run, [(trained, _pictures(run, trained, split, limit, registry, reporter))]
    if split is not None:
        raise InputError(
            f"'{run.folder}' is a cross-validation: each of its slices is explained by the model that has not seen "
            f"it. For --split name a fold, such as {run.folder}/fold-1."
        )
    return run, _fold_pictures(run, limit, registry, reporter)


def _pictures(
    run: Run, trained: Trained, split: str | None, limit: int | None, registry: Registry, reporter: Reporter
) -> SplitPictures:
    own = own_data(run, trained.pixels, registry, reporter)
    part, wanted = own.column("split"), split_name(split, own.splits)
    if wanted not in part:
        raise InputError(f"none of the {wanted} slices of '{run.folder}' can be read any more.")
    known = _recorded_probabilities(run, trained) if own.unchanged else {}
    return split_pictures(own.dataset, own.slices, part, wanted, limit, trained.pixels, known)


def _fold_pictures(
    run: Run, limit: int | None, registry: Registry, reporter: Reporter
) -> list[tuple[Trained, SplitPictures]]:
    """The models of a cross-validation, each with the slices that it has not seen."""
    unfinished = next((fold.folder.name for fold in fold_runs(run) if not fold.model_path.is_file()), None)
    if unfinished is not None:
        raise InputError(
            f"'{run.folder}' has not finished: {unfinished} has no model. Go on with: btkit run --resume {run.folder}"
        )
    models = [trained_of(fold) for fold in fold_runs(run)]
    own = own_data(run, models[0].pixels, registry, reporter)
    known = _recorded_probabilities(run, models[0]) if own.unchanged else {}
    fold = own.column("fold")
    tested = [place for place, number in enumerate(fold) if number is not None]
    chosen = set(tested if limit is None else (tested[place] for place in evenly_spaced(len(tested), limit)))
    found = []
    for number, trained in enumerate(models, start=1):
        part = ["test" if place in chosen and mine == str(number) else None for place, mine in enumerate(fold)]
        if any(part):
            pictures = split_pictures(own.dataset, own.slices, part, "test", None, trained.pixels, known)
            found.append((trained, pictures))
    if not found:
        raise InputError(f"none of the slices of '{run.folder}' can be read any more.")
    return found


def _recorded_probabilities(run: Run, trained: Trained) -> dict[str, tuple[float, ...]]:
    """What the run recorded of each sample; nothing where the table does not fit the model."""
    columns = [f"p_{name}" for name in trained.classes]
    try:
        rows = table_of(run, "predictions.csv", ("id", *columns))
        return {row["id"]: tuple(float(row[name]) for name in columns) for row in rows}
    except (KeyError, ValueError, InputError):
        return {}
