"""The reference pages of the documentation, made from the code while mkdocs builds: nothing in them is written twice.

mkdocs calls `on_files` (`hooks:` in mkdocs.yml). A command, option, key of params.yaml, column or public name that nobody has
explained ends the build, with a list of all.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@dataclass
class Page:
    """A page, and what in it lacks an explanation."""

    text: str
    undocumented: list[str] = field(default_factory=list)


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars and line ends in cells are taken care of."""
    lines = [list(headings), *map(list, rows)]
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def code(value: object) -> str:
    """`value` between backquotes."""
    return f"`{value}`"


# The command line ----------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(words, command, what each of its parameters takes) of every command, groups opened, sorted."""
    import typer

    from comics.cli import app

    def below(words: str, group: typer.Typer, command: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
        for one in group.registered_commands:
            assert one.callback is not None
            name = one.name or one.callback.__name__.replace("_", "-")
            signature = inspect.signature(one.callback, eval_str=True)
            kinds = {key: parameter.annotation for key, parameter in signature.parameters.items()}
            yield f"{words} {name}", command.commands[name], kinds
        for inner in group.registered_groups:
            assert inner.typer_instance is not None
            name = str(inner.name or inner.typer_instance.info.name)
            yield from below(f"{words} {name}", inner.typer_instance, command.commands[name])

    root = app()
    return iter(sorted(below("comics", root, typer.main.get_command(root)), key=lambda found: found[0]))


WORDS = {str: "text", int: "integer", float: "number", Path: "path", bool: ""}


def _kind(annotation: Any, parameter: Any) -> str:
    """What an option or argument takes."""
    inner = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) is Literal:
        return " ".join(map(code, inner))
    if get_origin(annotation) is list:
        return f"{_kind(inner[0], parameter)}, any number of times"
    if inner:
        return _kind(inner[0], parameter)
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " ".join(code(one.value) for one in annotation)
    bounds = [f"≥ {parameter.min}"] * (parameter.min is not None) + [f"≤ {parameter.max}"] * (parameter.max is not None)
    return ", ".join(filter(None, [WORDS.get(annotation, "text"), *bounds]))


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    if callable(default) or default is None or default is False or default in ((), [], ""):
        return ""
    if isinstance(default, list | tuple):
        return " ".join(code(one) for one in default)
    return code(default)


def command_page() -> Page:
    """Every command with its arguments and options."""
    found = list(commands())
    page = Page(
        "# The command line\n\n"
        "Made from the commands themselves. `comics COMMAND --help` says the same on a terminal. Wrong use, and input that cannot be\n"
        "right, end with code 2 and a message that names the file or option; an interruption with 130; `comics train`\n"
        "that SLURM or `kill` ends, with 143. `comics detect` has [codes of its own](../detect.md#what-is-written).\n\n"
        "Every command takes `--params FILE`, the file to work from instead of params.yaml, and `--help`. `comics --version` prints the\n"
        "version, of a checkout with its commit.\n\n"
    )
    page.text += table(
        ["command", ""],
        [
            [f"[`{words}`](#{words.replace(' ', '-')})", (command.help or "").strip().split("\n\n")[0]]
            for words, command, _ in found
        ],
    )
    for words, command, kinds in found:
        help_text = inspect.cleandoc(command.help or "")
        if not help_text:
            page.undocumented.append(words)
        shown = [
            one
            for one in command.params
            if not getattr(one, "hidden", False) and one.name not in ("params_file", "help")
        ]
        arguments = [one for one in shown if not one.opts[0].startswith("-")]
        usage = " ".join([words, "[OPTIONS]", *map(_usage, arguments)])
        page.text += f"\n## {words}\n\n{help_text}\n\n```\n{usage}\n```\n\n"
        rows = []
        for one in shown:
            told = getattr(one, "help", None) or ""
            if not one.opts[0].startswith("-"):
                name = code(one.metavar or one.name.upper())
            else:
                name = " ".join(code(text) for text in [*one.opts, *one.secondary_opts])
            if not told:
                page.undocumented.append(f"{words} {name}")
            rows.append([name, _kind(kinds[one.name], one), _default(one), told])
        if rows:
            page.text += table(["", "takes", "default", ""], rows)
    return page


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


# params.yaml ---------------------------------------------------------------------------------------------------------


def _blocks(annotation: Any) -> Iterator[Any]:
    """The blocks that a field's annotation holds, those of entries by the class that they stand for."""
    from comics.params.block import Block

    if inspect.isclass(annotation) and issubclass(annotation, Block):
        yield annotation.entry_of or annotation
    for inner in get_args(annotation):
        yield from _blocks(inner)


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema or "oneOf" in schema:
        return "block"
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return " ".join(code(one) for one in schema["enum"])
    if "anyOf" in schema:
        parts = [_type(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    kind = schema.get("type", "anything")
    if kind == "array":
        if "prefixItems" in schema:
            return ", ".join(_type(one) for one in schema["prefixItems"])
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object":
        inner = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        inner = [one for one in inner if isinstance(one, Mapping)]
        return f"name: {_type(inner[0])}" if inner else "block"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return " ".join([{"string": "text", "boolean": "true or false"}.get(kind, kind), ", ".join(bounds)]).strip()


@dataclass
class Section:
    """A block of params.yaml: where it stands, and the fields of its class."""

    place: str
    model: Any
    examples: dict[str, list[str]] = field(default_factory=dict)


def _detectors() -> list[str]:
    """Those of this package, whatever else has been made known to the process."""
    from comics.params.detectors import names, settings_of

    return [name for name in names() if settings_of(name).__module__.startswith("comics.")]


def sections() -> dict[Any, Section]:
    """Every block that params.yaml may hold, by class, in the order of the file."""
    from comics.params.detectors import settings_of
    from comics.params.file import ParamsFile
    from comics.params.reports import GridRows
    from comics.params.runs import ModelParams

    found: dict[Any, Section] = {ParamsFile: Section("The file", ParamsFile)}

    def below(model: Any, place: str, of: str = "") -> None:
        for name, one in model.model_fields.items():
            if model is ModelParams and name == "settings":
                continue
            named = "dict" in str(one.annotation)
            path = ".".join(filter(None, [place, name, "NAME" if named else ""]))
            path = "runs.NAME" if path == "defaults" else path
            inner = list(dict.fromkeys(_blocks(one.annotation)))
            for block in inner:
                if block in found:
                    continue
                kind = block.model_fields.get("kind")
                told = f" (kind: {kind.default})" if kind is not None and len(inner) > 1 else of
                found[block] = Section(path + told, block)
                below(block, path, told)
        if model is ModelParams:
            for name in _detectors():
                settings = settings_of(name)
                found.setdefault(settings, Section(f"{place}.{name}", settings))

    below(ParamsFile, "")
    found[GridRows] = Section("tables.NAME.rows, for a grid", GridRows)
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else ""


def _collect(found: dict[Any, Section], model: Any, content: Any) -> None:
    """Values that `content`, a block of our params.yaml, gives the fields of `model`, and so on below."""
    from comics.params.detectors import settings_of
    from comics.params.runs import ModelParams

    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if model is ModelParams and key in _detectors():
            _collect(found, settings_of(key), value)
        elif key in model.model_fields:
            blocks = list(_blocks(model.model_fields[key].annotation))
            if not blocks:
                shown = _short(value)
                if shown and shown not in found[model].examples.setdefault(key, []):
                    found[model].examples[key].append(shown)
            named = "dict" in str(model.model_fields[key].annotation)
            inner = value if isinstance(value, list) else list(value.values()) if named else [value]
            for one in inner if blocks else []:
                kinds = [block for block in blocks if "kind" in block.model_fields]
                wanted = [block for block in kinds if block.model_fields["kind"].default == one.get("kind")]
                _collect(found, (wanted or blocks)[0], one)


def params_page() -> Page:
    """Every key of params.yaml."""
    from ruamel.yaml import YAML

    from comics.params.block import field_docs
    from comics.params.file import ParamsFile
    from comics.params.runs import ModelParams, RunParams

    found = sections()
    _collect(found, ParamsFile, YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    page = Page(
        "# params.yaml\n\n"
        "Made from the classes that check the file. A key that is left out has its default; a misspelt one ends with code 2 before\n"
        "anything runs. `NAME` stands for a name of yours. Where the file has a block by dataset (`training`, `models`, `objectives`,\n"
        "`views`), a run states what differs from it, under the same keys: `training.mini.lr` for all runs on mini,\n"
        "`runs.NAME.training.lr` for one. *Example* shows values that the params.yaml of this version has.\n\n"
        "Beside these keys, a file may have `extends`: a file, relative to this one, that it is laid on\n"
        "([more](../workflow.md#a-file-of-your-own)).\n"
    )
    for model, section in found.items():
        schema = model.model_json_schema()
        properties = schema["properties"] if "properties" in schema else schema["$defs"][model.__name__]["properties"]
        docs = field_docs(model)
        page.text += f"\n## {section.place}\n\n{inspect.cleandoc(model.__doc__ or '')}\n\n"
        if not model.__doc__:
            page.undocumented.append(f"params.yaml: {section.place}")
        rows = []
        for name, one in model.model_fields.items():
            if model is ModelParams and name == "settings":
                continue
            blocks = list(dict.fromkeys(_blocks(one.annotation)))
            told = one.description or docs.get(name, "")
            if name == "kind":
                told = "Says which kind it is."
            links = ", ".join(f"[{found[block].place}](#{anchor(found[block].place)})" for block in blocks)
            if links and model is not ParamsFile and not told:
                told = inspect.cleandoc(blocks[0].__doc__ or "").split("\n\n")[0]
            if not told:
                page.undocumented.append(f"params.yaml: {section.place}: {name}")
            required = one.is_required()
            default = "required" if required else "" if blocks else _short(one.get_default(call_default_factory=True))
            examples = ", ".join(code(value) for value in section.examples.get(name, [])[:3])
            kind = links or _type(properties[name])
            rows.append([code(name), kind, code(default) if default and not required else default, examples, told])
        if model is RunParams:
            grid = model.entry_fields()["grid"][1].description
            rows.append([code("grid"), "name: list", "", "", f"{grid} [More](../workflow.md#a-grid)."])
        if rows:
            page.text += table(["key", "takes", "default", "example", ""], rows)
    return page


def anchor(heading: str) -> str:
    """The anchor that Markdown gives a heading."""
    from markdown.extensions.toc import slugify

    return slugify(heading, "-")


# Files and their columns ---------------------------------------------------------------------------------------------

COLUMNS = {
    "task": "`detection`: boxes; `segmentation`: masks",
    "class": "`all`, then each class",
    "metric": "name of a metric, as columns of scores have it",
    "value": "the score, a fraction",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "first": "of the first file",
    "second": "of the second file",
    "difference": "first minus second; of a study, run minus baseline",
    "p": "p-value of the permutation test",
    "dataset": "it was trained on",
    "test": "dataset it was tested on: the same, or one of the run's `tests`",
    "run": "name of the run",
    "seed": "of the training",
    "split": "`train`, `val`, `test_dev` or `test_challenge`",
    "digest": "of the run's description",
    "state": "`current`, or `stale` where the run has changed since",
    "size": "`small` below 32² px², `large` above 96² px², `medium`",
    "faces": "how many there are",
    "faces_in_image": "group of images, by their number of faces",
    "images": "how many there are",
    "group": "kind of forgery, or how much of the box another face's box covers",
    "recall": "share of the faces found",
    "precision_50": "precision at that recall, at an IoU of 0.5",
    "precision_75": "the same at 0.75",
    "precision_mean": "the same, mean over 0.50 to 0.95",
    "threshold": "detections with at least this score are kept",
    "LRP": "the error at that threshold",
    "Loc": "its part of loose outlines",
    "FP": "its part of false alarms",
    "FN": "its part of missed faces",
    "truth": "class of the face",
    "found_as": "class it was found as, or that it was missed",
    "count": "how many",
    "share": "of the faces of that class",
    "error": "kind of error",
    "AP50_lost": "what it costs, as a fraction",
    "operation": "what was done to the images; `clean` for none",
    "family": "family of the operation",
    "severity": "0 (as they are) to 5",
    "psnr": "mean peak signal to noise ratio, dB",
    "ssim": "mean structural similarity",
    "mean": "over seeds, in percent",
    "deviation": "over seeds, in percent",
    "verdict": "`real`, `fake` (of faces), `no face`, `unreadable`; of a study, whether the difference is told from 0",
    "clean": "the metric on the images as they are, in percent",
    "perturbed": "its mean over operations and severities, in percent",
    "mce": "mean corruption error relative to the baseline, in percent",
    "relative_mce": "the same of the increase over clean images",
    "file": "as it was named",
    "kind": "`image`, `video` or `error`",
    "frame": "number of the frame",
    "time": "of the frame, s",
    "track": "number of the face, the same over the frames of a video",
    "x": "left edge of the box, px",
    "y": "upper edge, px",
    "width": "of the box, px",
    "height": "of the box, px",
    "score": "how sure the detector is that there is a face",
    "p_fake": "how likely it is forged",
    "mask_area": "px",
    "model": "name of the model",
    "notice": "what the model is not for",
    "AP": "average precision, mean over IoU 0.50 to 0.95",
    "AP50": "at an IoU of 0.50",
    "AP75": "at an IoU of 0.75",
    "AP_S": "of faces below 32² px²",
    "AP_M": "of faces between",
    "AP_L": "of faces above 96² px²",
    "oLRP": "optimal localisation recall precision error; lower is better",
    "oLRP_Loc": "its part of loose outlines",
    "oLRP_FP": "its part of false alarms",
    "oLRP_FN": "its part of missed faces",
    "oLRP_threshold": "the score from which on detections are kept there",
}
"""What the columns of our CSV files mean; verdicts are explained by their parts (`VERDICTS`)."""

VERDICTS = {
    "AUC": "area under the ROC curve",
    "EER": "equal error rate; lower is better",
    "ACC": "share of right verdicts at P(fake) ≥ 0.5",
    "BACC": "mean of that share of forged and of real",
    "TPR1": "share of forged found where at most 1 % of the real is called fake",
    "TPR5": "the same with 5 %",
    "ECE": "expected calibration error; lower is better",
    "Brier": "mean square of P(fake) minus the truth; lower is better",
    "found": "share of the faces found, whatever the verdict",
    "F1": "F1 of what is forged at P(fake) ≥ 0.5",
    "IoU": "IoU of what is forged at P(fake) ≥ 0.5",
    "F1_best": "F1 at the best threshold of the set, an upper bound",
    "IoU_best": "IoU at the best threshold of the set, an upper bound",
}
JUDGED = ("pixel_core", "face", "image", "pixel", "video", "track")
JUDGED_WORDS = {
    "face": "faces",
    "image": "images",
    "pixel": "pixels",
    "pixel_core": "pixels away from outlines",
    "video": "videos",
    "track": "faces followed through a video",
}

RUN = "results/<dataset>/<run>/seed<k>/"

FILES = (
    (f"{RUN}<split>.csv", "comics evaluate", "comics.evaluation.scores:CSV_HEADER", "Fractions."),
    ("<scores>.intervals.csv", "comics evaluate --bootstrap", "comics.commands.evaluate:INTERVAL_HEADER", "Fractions."),
    (f"{RUN}<split>.details/by_size.csv", "comics evaluate --details", "comics.evaluation.breakdowns:SIZE_HEADER", ""),
    (
        f"{RUN}<split>.details/by_faces.csv",
        "comics evaluate --details",
        "comics.evaluation.breakdowns:FACES_HEADER",
        "",
    ),
    (
        f"{RUN}<split>.details/by_forgery.csv, by_overlap.csv",
        "comics evaluate --details",
        "comics.evaluation.breakdowns:GROUP_HEADER",
        "",
    ),
    (
        f"{RUN}<split>.details/precision_recall.csv",
        "comics evaluate --details",
        "comics.evaluation.breakdowns:PRECISION_HEADER",
        "",
    ),
    (f"{RUN}<split>.details/lrp.csv", "comics evaluate --details", "comics.evaluation.breakdowns:LRP_HEADER", ""),
    (
        f"{RUN}<split>.details/confusion.csv",
        "comics evaluate --details",
        "comics.evaluation.breakdowns:CONFUSION_HEADER",
        "At the thresholds of oLRP.",
    ),
    (f"{RUN}<split>.details/errors.csv", "comics evaluate --details", "comics.evaluation.breakdowns:ERROR_HEADER", ""),
    ("differences.csv", "comics compare --output", "comics.commands.evaluate:DIFFERENCE_HEADER", "Fractions."),
    ("scores.csv, scores.parquet", "comics results", "comics.results:COLUMNS", "A row a number."),
    (
        "reports/scores.csv",
        "comics metrics",
        "comics.workflow.demo:SCORES_HEADER",
        "Fractions, of all classes together.",
    ),
    ("reports/studies/<study>.csv", "comics study", "comics.report.study:CSV_HEADER", "Percent."),
    (
        "results/<dataset>/<run>/robustness.csv",
        "comics robustness measure",
        "comics.detect.robustness:HEADER",
        "Fractions, of all classes together.",
    ),
    (
        "reports/robustness/robustness.csv",
        "comics robustness report",
        "comics.report.robustness:CSV_HEADER",
        "Percent; then a column a family with the mean change from clean images.",
    ),
    ("detections/detections.csv", "comics detect", "comics.detect.files:CSV_COLUMNS", "A row a face."),
)

OTHER = (
    ("data/<dataset>/<split>/annotations.json", "canonical COCO", "[data](../data.md)"),
    (
        "data/<dataset>/<split>/conversion.json",
        "what the conversion changed",
        "[data](../data.md#what-the-conversion-does)",
    ),
    ("data/<dataset>/card.md, card.png", "the dataset card (`comics data verify`)", "[data](../data.md)"),
    (
        f"{RUN}model.pt",
        "weights and the run's description; `torch.load(..., weights_only=True)`",
        "[detect](../detect.md)",
    ),
    (f"{RUN}run.json", "description, digest, versions, hardware, seconds, joules, memory", ""),
    (f"{RUN}<split>.detections.json", "COCO results: boxes, masks, scores", "[evaluation](../evaluation.md)"),
    (
        f"{RUN}on_<test>/<split>.detections.json, <split>.csv",
        "the same on a dataset of the run's `tests`, and its scores",
        "[evaluation](../evaluation.md#generalisation)",
    ),
    (
        f"{RUN}calibration.json, README.md, reliability.svg, reliability.json",
        "calibration, model card, and how the calibration holds on the test sets",
        "[detect](../detect.md#calibration)",
    ),
    (
        f"{RUN}logs/metrics.csv",
        "by step: `epoch`, `step`, and a column `train/...` a logged value: every term of the loss, what is read beside it "
        "(InfoNCE, proposals a level), learning rate, norm of the gradient",
        "",
    ),
    (f"{RUN}checkpoints/", "what an interrupted training goes on from; removed when it is done", ""),
    ("<file>.meta.json", "sidecar: run, digest, SHA-256 and size of the file beside it", "[workflow](../workflow.md)"),
    (
        "reports/<table>.csv",
        "`split`, the table's label columns, `source` (ours, paper, delta), `run`, `seeds`, `task`, its metrics in percent, and "
        "`<metric>_std`, their deviation over seeds",
        "[reports](../reports.md)",
    ),
    (
        "detections/detections.json",
        "`comics-detections/1`; `comics detect --schema` prints it",
        "[detect](../detect.md)",
    ),
)


def columns_of(place: str) -> tuple[str, ...]:
    """The header ``module:NAME``."""
    module, _, name = place.partition(":")
    return tuple(getattr(importlib.import_module(module), name))


def meaning(column: str) -> str:
    """What a column means; empty where nobody has said it."""
    if column in COLUMNS:
        return COLUMNS[column]
    for kind in JUDGED:
        if column.startswith(f"{kind}_"):
            told = VERDICTS.get(column.removeprefix(f"{kind}_"), "")
            return f"verdicts on {JUDGED_WORDS[kind]}: {told}" if told else ""
    return ""


def files_page() -> Page:
    """What is written, and the columns of each table."""
    page = Page(
        "# Files and columns\n\n"
        "Headers are those of the code. A cell is empty where a metric is undefined; [evaluation](../evaluation.md) defines metrics.\n\n"
        "## Tables\n"
    )
    used = set()
    for path, maker, place, note in FILES:
        page.text += f"\n### {path.replace('<', '&lt;')}\n\nWritten by `{maker}`. {note}\n\n"
        columns = columns_of(place)
        used |= set(columns)
        page.undocumented += [f"{path}: column {column}" for column in columns if not meaning(column)]
        page.text += table(["column", ""], [[code(column), meaning(column)] for column in columns])
    page.undocumented += [
        f"scripts/reference.py: no file has the column {name}" for name in COLUMNS if name not in used
    ]
    page.text += "\n## Everything else\n\n"
    page.text += table(["file", "", "more"], [[code(path), told, more] for path, told, more in OTHER])
    return page


# Public names --------------------------------------------------------------------------------------------------------


def silent_names(package: Path) -> list[str]:
    """Modules, and public functions and classes at their top, without a docstring."""
    found = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        names = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        ]
        if not ast.get_docstring(tree):
            found.append(module)
        found += [f"{module}.{node.name}" for node in names if not ast.get_docstring(node)]
    return found


PAGES = {"cli.md": command_page, "params.md": params_page, "files.md": files_page}


def pages() -> dict[str, str]:
    """The reference, by file name.

    Raises:
        ValueError: something is not explained; all of it is named.
    """
    made = {name: make() for name, make in PAGES.items()}
    missing = [*silent_names(ROOT / "comics"), *(one for page in made.values() for one in page.undocumented)]
    if missing:
        raise ValueError("Not documented: " + "; ".join(missing))
    return {name: page.text for name, page in made.items()}


def on_files(files: Any, config: Any) -> Any:
    """mkdocs: take the reference among the pages."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File

    try:
        made = pages()
    except ValueError as error:
        raise PluginError(str(error)) from error
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}", content=re.sub(r"\n{3,}", "\n\n", text)))
    return files
