"""The command line: `python -m prefix_studio COMMAND`.

Exit codes: 0 done; 1 it failed, with one clear line on stderr; 2 wrong usage or bad input, with what and where.
Each command is a few lines over the room that does the work; rooms are imported when their command runs, so that
`worker` stays tiny and `--help` is quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from prefix_studio import __version__
from prefix_studio.errors import StudioError
from prefix_studio.settings import LIBRARY_ENVIRONMENT, Settings

# Problems that another input would mend; the rest happened on the way.
BAD_INPUT = {"input", "data", "model"}


def main(arguments: list[str] | None = None) -> int:
    for name, value in LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = build_parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except StudioError as error:
        print(one_line(error), file=sys.stderr)
        return 2 if error.category in BAD_INPUT else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader went away (`… | head`); what is left unsaid is nobody's loss.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("PREFIX_STUDIO_DEBUG"):
            raise
        print(f"Internal error: {one_line(error)} (PREFIX_STUDIO_DEBUG=1 shows where)", file=sys.stderr)
        return 1


def tune(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from prefix_studio.recipe import Recipe
    from prefix_studio.runs.attempt import is_first, run_recipe

    recipe = Recipe.load(options.recipe)
    with tqdm(unit="step", dynamic_ncols=True, disable=not is_first()) as bar:
        state = run_recipe(recipe, options.out, device=options.device, on_event=lambda event: show_event(bar, event))
    if not is_first():
        return 0
    if state != "finished":
        print(f"The run is {state}; the same command goes on from its last checkpoint.", file=sys.stderr)
        return 1
    print(f"Finished: the adapter is in {options.out / 'adapter'}")
    return 0


def check(options: argparse.Namespace) -> None:
    from prefix_studio.models.check import check_model
    from prefix_studio.recipe import ModelPart, PrefixPart

    report = check_model(
        ModelPart(id=anchored(options.model), revision=options.revision, dtype=options.dtype),
        PrefixPart(num_virtual_tokens=options.virtual_tokens) if options.virtual_tokens else None,
        batch_size=options.batch_size,
        max_length=options.max_length,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    if options.json:
        print_json(report)
        return
    if not report["supported"]:
        print(f"{options.model} cannot be tuned: {report['reason']}")
        return
    trained, everything = report["trainable_parameters"], report["all_parameters"]
    print(f"{options.model} can be tuned ({report['family']}).")
    print(f"The prefix goes into {layer_words(report['layers'])}.")
    print(f"It has {trained:,} parameters, {report['trainable_share']:.4%} of {everything + trained:,} in all.")
    needed, free = (report[name] / 2**20 for name in ("memory_bytes", "memory_available_bytes"))
    print(f"Training takes about {needed:,.0f} MiB of memory, of {free:,.0f} MiB free here.")
    if report["largest_batch_size"]:
        print(f"Batches of up to {report['largest_batch_size']:,} such rows would fit.")
    for warning in report["warnings"]:
        print(f"Note: {warning}")


def layer_words(layers: list[dict[str, Any]]) -> str:
    """`24 layers, as keys and values of 16 heads x 64`, a part for every shape there is."""

    def size(shape: list[int]) -> str:
        return f"{shape[0]} head{'s' if shape[0] > 1 else ''} x {shape[1]}"

    shapes: dict[str, int] = {}
    for layer in layers:
        key, value = size(layer["key_shape"]), size(layer["value_shape"])
        text = f"keys and values of {key}" if key == value else f"keys of {key} and values of {value}"
        if "submodule" in layer:
            text += f" ({layer['submodule']})"
        shapes[text] = shapes.get(text, 0) + 1
    return ", and ".join(f"{n} layer{'s' if n > 1 else ''}, as {text}" for text, n in shapes.items())


def preview(options: argparse.Namespace) -> None:
    from prefix_studio.recipe import Recipe

    recipe = Recipe.load(options.recipe)  # a wrong one is told before torch is loaded

    from prefix_studio.data.preview import preview
    from prefix_studio.models.load import load_tokenizer

    seen = preview(recipe, load_tokenizer(recipe.model))
    if options.json:
        print_json(seen)
        return
    report = seen["report"]
    print(f"{report['rows_used']} of {report['rows_read']} rows are used.")
    for drop in report["dropped"][:20]:
        print(f"Row {drop['row']} is dropped: {drop['why']}")
    for warning in report["warnings"]:
        print(f"Note: {warning}")
    for example in seen["examples"]:
        print("\n[ignored by the loss] learned:")
        print("".join(token["text"] if token["learned"] else f"[{token['text']}]" for token in example["tokens"]))


def compare(options: argparse.Namespace) -> None:
    from prefix_studio.generation.engine import Sampling
    from prefix_studio.recipe import ModelPart
    from prefix_studio.server.engine import compare_once

    sampling = Sampling(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    model = ModelPart(id=anchored(options.model))
    answer = compare_once(model, options.adapter, options.prompt, options.init_text, sampling)
    if options.json:
        print_json(answer)
        return
    print_column("base", answer["base"])
    if answer["init_text"]:
        print_column("init text only", answer["init_text"])
    for adapter in answer["adapters"]:
        print_column(adapter["adapter"], adapter)


def evaluate(options: argparse.Namespace) -> None:
    from prefix_studio.recipe import ModelPart, Recipe

    recipe = Recipe.load(options.recipe)

    from prefix_studio.training.evaluate import evaluate_adapter

    answer = evaluate_adapter(ModelPart(id=anchored(options.model)), options.adapter, options.data, recipe)
    if options.json:
        print_json(answer)
        return
    print(f"{answer['rows']} rows")
    print(f"{'':14}{'base':>10}{'tuned':>10}")
    for metric, value in answer["base"].items():
        print(f"{metric:14}{value:10.4f}{answer['tuned'][metric]:10.4f}")


def export(options: argparse.Namespace) -> None:
    from prefix_studio.adapters.archive import write_archive

    if not options.adapter.is_dir():
        raise StudioError(f"There is no folder {options.adapter}.", "Give an adapter's folder, or a run's.")
    if options.format != "peft":
        raise StudioError(f"Export for {options.format} is not available yet.", "Use --format peft.")
    inside = options.adapter / "adapter"
    folder = inside if inside.is_dir() else options.adapter
    print(write_archive(folder, options.out, name=options.adapter.resolve().name))


def import_adapter(options: argparse.Namespace) -> None:
    from prefix_studio.adapters.shelf import Shelf
    from prefix_studio.runs.table import RunTable

    settings = Settings.from_environment().prepare()
    print(Shelf(settings, RunTable(settings)).import_zip(options.file))


def worker(options: argparse.Namespace) -> int | None:
    from prefix_studio.runs.supervisor import main

    return main(Settings.from_environment().prepare())


def serve(options: argparse.Namespace) -> None:
    from prefix_studio.server.app import serve

    serve(
        Settings.from_environment().prepare(),
        host=options.host,
        port=options.port,
        model=anchored(options.model) if options.model else None,
        adapters=options.adapter,
        api_key=options.api_key,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prefix_studio", description="Prefix tuning of language models.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=function)
        return sub

    sub = command("tune", tune, "run a recipe in the foreground; the same command again resumes")
    sub.add_argument("recipe", type=Path)
    sub.add_argument("--out", type=Path, required=True, help="folder for the adapter, progress and log")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ... (default: auto)")

    sub = command("check", check, "can this model be tuned, and what will it take")
    sub.add_argument("model", help="bundled, a Hub id, or a folder")
    sub.add_argument("--revision")
    sub.add_argument("--virtual-tokens", type=positive, metavar="N", help="prefix length (default: the recipe's)")
    sub.add_argument("--batch-size", type=positive, metavar="N", help="rows a batch (default: the recipe's)")
    sub.add_argument("--max-length", type=positive, metavar="N", help="tokens a row (default: the recipe's)")
    sub.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    sub.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    sub.add_argument("--json", action="store_true")

    sub = command("preview", preview, "the first examples as the model will see them")
    sub.add_argument("recipe", type=Path)
    sub.add_argument("--json", action="store_true")

    sub = command("compare", compare, "base and adapters side by side, in one batch")
    sub.add_argument("--model", required=True)
    sub.add_argument("--adapter", action="append", type=Path, default=[], metavar="DIR")
    sub.add_argument("--prompt", required=True)
    sub.add_argument("--init-text")
    sub.add_argument("--max-new-tokens", type=positive, default=128)
    sub.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    sub.add_argument("--top-p", type=float, default=1.0)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--json", action="store_true")

    sub = command("evaluate", evaluate, "metrics of base and tuned on a file of rows")
    sub.add_argument("--model", required=True)
    sub.add_argument("--adapter", required=True, type=Path, metavar="DIR")
    sub.add_argument("--data", required=True, type=Path, metavar="FILE")
    sub.add_argument("--recipe", required=True, type=Path)
    sub.add_argument("--json", action="store_true")

    sub = command("export", export, "an adapter as a file for another runtime")
    sub.add_argument("adapter", type=Path, metavar="DIR")
    sub.add_argument("--format", choices=("peft", "llama.cpp", "mlx"), default="peft")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE")

    sub = command("import", import_adapter, "put an adapter's zip on the shelf; prints its id")
    sub.add_argument("file", type=Path, metavar="FILE")

    command("worker", worker, "the supervisor that works through the queue")

    sub = command("serve", serve, "an OpenAI-compatible server of base models and adapters")
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--port", type=int, default=8000)
    sub.add_argument("--model")
    sub.add_argument("--adapter", action="append", type=Path, default=[], metavar="DIR")
    sub.add_argument("--api-key", help="ask for this key (default: none with --model, else the studio's token)")
    return parser


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def anchored(model: str) -> str:
    """A folder's absolute path; a Hub id or `bundled` as it is."""
    return str(Path(model).resolve()) if model != "bundled" and Path(model).is_dir() else model


def show_event(bar: Any, event: dict[str, Any]) -> None:
    if event["event"] == "state":
        bar.set_description(event["state"])
    elif event["event"] == "step":
        bar.total = event["total_steps"]
        bar.set_description("training", refresh=False)
        bar.set_postfix(loss=f"{event['loss']:.3f}", refresh=False)
        bar.update(event["step"] - bar.n)
    elif event["event"] == "eval":
        bar.write(f"step {event['step']}: eval_loss {event['eval_loss']:.4f}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_column(title: str, answer: dict[str, Any]) -> None:
    print(f"== {title} ({answer['tokens']} tokens)\n{answer['text']}\n")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
