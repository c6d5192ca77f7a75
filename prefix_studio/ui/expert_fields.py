"""What a beginner can leave alone: the folded settings of each step of the Tune page, in plain words.

Each function lays out one step's fold inside the current block. Knows no handlers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from prefix_studio.ui.fields import Fields
from prefix_studio.ui.form import SPREAD

SQUEEZE_HELP = (
    "Quantization: a large model in less memory, a little less exact. Needs the bitsandbytes package. A model that "
    "comes squeezed is taken as it is."
)
SUBMODULES_HELP = (
    "This model reads with an encoder and writes with a decoder. With a prefix in the decoder alone, stock PEFT loads "
    "the adapter. All three places are the way of the prefix-tuning paper and hold more; only Prefix Studio loads that."
)


@contextmanager
def fold() -> Iterator[None]:
    with gr.Accordion("Expert settings", open=False, elem_classes="ps-expert"):
        yield


def expert_model(fields: Fields) -> None:
    with fold():
        with gr.Row():
            fields.text("model.revision", "Revision", "Branch, tag or commit on the Hub.")
            fields.one_of(
                "model.dtype",
                "Number format",
                "auto: 32 bits on a CPU, bfloat16 on a GPU and for large models.",
                ["auto", "float32", "bfloat16", "float16"],
            )
        with gr.Row():
            fields.one_of(
                "model.quantization",
                "Squeeze the model",
                SQUEEZE_HELP,
                [("No", "none"), ("To 8 bits a weight", "8bit"), ("To 4 bits a weight", "4bit")],
            )
            fields.tick(
                SPREAD,
                "Spread over all GPUs",
                "For a model larger than one GPU; what finds no room there waits in the machine's memory. Slower.",
            )


def expert_data(fields: Fields) -> None:
    with fold(), gr.Row():
        fields.text(
            "data.validation",
            "Held-back rows",
            "A share (0.1), a number of rows (40), or a second file's path. 0 holds none back.",
        )
        fields.number("data.max_length", "Longest row, in tokens", "Longer rows are left out and reported.")


def expert_prefix(fields: Fields) -> None:
    with fold():
        with gr.Row():
            fields.tick(
                "prefix.prefix_projection",
                "Learn through a projection",
                "A small network writes the prefix: steadier at high learning rates, slower.",
                elem_id="projection",
            )
            fields.number(
                "prefix.encoder_hidden_size",
                "Width of the projection",
                "Empty: chosen for you. To start from a text, at least the number of virtual tokens.",
                visible=False,
            )
        with gr.Row():
            fields.number(
                "prefix.num_frozen_tokens",
                "Keep the first tokens as they are",
                "1 keeps the first token of a starting text, on which models like to rest their attention: steadier on "
                "few rows.",
                elem_id="frozen-tokens",
            )
            fields.tick(
                "prefix.use_chat_template",
                "Write the starting text as a system message",
                "For chat models: the text stands where such a model expects its instructions.",
            )
        fields.radio(
            "prefix.submodules",
            "Where the prefix goes",
            SUBMODULES_HELP,
            [("In the decoder", "decoder"), ("In encoder, decoder and between the two", "all")],
            visible=False,
            elem_id="submodules",
        )


def expert_training(fields: Fields) -> None:
    with fold():
        with gr.Row():
            fields.one_of(
                "training.lr_scheduler_type",
                "Schedule",
                "How the learning rate changes over the run.",
                ["linear", "cosine", "constant", "constant_with_warmup"],
            )
            fields.fraction("training.warmup_steps", "Warm-up", "Steps, or a share below 1.")
            fields.fraction("training.weight_decay", "Weight decay", "0 is off: a prefix has nothing to decay towards.")
        with gr.Row():
            fields.fraction("training.max_grad_norm", "Gradient clipping", "Largest norm of a step's gradient.")
            fields.number("training.gradient_accumulation_steps", "Accumulate", "Batches added up before a step.")
            fields.number("training.seed", "Seed", "Same seed, same run.")
        with gr.Row():
            fields.one_of(
                "training.loss_average",
                "What counts alike",
                "By example, a short answer weighs as much as a long one.",
                [("Every token", "token"), ("Every example", "example")],
            )
            fields.fraction(
                "training.label_smoothing_factor",
                "Label smoothing",
                "0 is off. 0.1 keeps the model from being too sure of rows that may be wrong.",
            )
        with gr.Row():
            fields.number("training.eval_steps", "Check every", "Steps; empty: about ten checks a run.")
            fields.number("training.save_steps", "Checkpoint every", "Steps; empty: every minute.")
            fields.number("training.early_stopping_patience", "Patience", "Stop after so many checks without progress.")
        with gr.Row():
            fields.number(
                "training.per_device_eval_batch_size", "Rows at a time in checks", "The evaluation batch size."
            )
            fields.number("evaluation.samples", "Answers written out", "Held-back rows answered at the end.")
            fields.number("evaluation.max_new_tokens", "Longest answer, in tokens", "For those answers.")
        fields.any_of(
            "evaluation.metrics",
            "Measured on held-back rows",
            [("Loss", "loss"), ("Exact match", "exact_match"), ("BLEU", "bleu")],
        )
        with gr.Row():
            fields.tick(
                "training.auto_find_batch_size",
                "If memory runs out, halve the batch and go on",
                "What is learned stays the same; a step takes longer.",
            )
            fields.tick("training.gradient_checkpointing", "Gradient checkpointing", "Less memory, more time.")
