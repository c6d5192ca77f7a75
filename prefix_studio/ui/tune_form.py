"""The Tune page's components: four numbered steps beside a summary. No handlers here.

`build_form` lays them out inside the current block and returns them by name; a field's key is its place in the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component

from prefix_studio.settings import ASSETS
from prefix_studio.ui.form import AS_LONG_AS_TEXT
from prefix_studio.ui.fragments import busy_notice, field_label, heading, step_heading

DATA_FILES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]
INIT_HELP = (
    "Where training starts matters more than any other setting. Try a short neutral text first, such as "
    "“Question: ”; then a longer one about your task. “Zero” without projection is the quick check."
)
WHAT_IS_A_PREFIX = """
A language model reads a prompt and keeps, in each of its layers, notes on every token (its *keys* and *values*).
**Prefix tuning** puts a few made-up tokens in front, the *virtual tokens*, and trains nothing but their notes.
The model itself stays as it was, so what you take home is small, and one model can serve many tasks.
"""


@dataclass
class Form:
    """The components of the Tune page. fields: by recipe key, in the order handlers get their values."""

    fields: dict[str, Component] = field(default_factory=dict)
    notices: dict[int, gr.HTML] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)


def build_form(models: list[tuple[str, str]], samples: list[tuple[str, str]], values: dict[str, Any]) -> Form:
    """Lays out the page. models, samples: label and value of each choice; values: what the fields open with."""
    form = Form()
    with gr.Row(elem_classes="ps-tune"):
        with gr.Column(scale=5, min_width=320, elem_classes="ps-steps"):
            with gr.Accordion("What is a prefix?", open=False, elem_classes="ps-help"):
                gr.HTML((ASSETS / "prefix-picture.svg").read_text(encoding="utf-8"), elem_classes="ps-picture")
                gr.Markdown(WHAT_IS_A_PREFIX)
            build_model_step(form, models, values)
            build_data_step(form, samples, values)
            build_prefix_step(form, values)
            build_training_step(form, values)
        with gr.Column(scale=3, min_width=300, elem_classes="ps-summary"):
            build_summary(form, values)
    return form


def build_model_step(form: Form, models: list[tuple[str, str]], values: dict[str, Any]) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(1, "Model", "The model that learns. The first one is here already and needs no download."))
        form.fields["model.id"] = gr.Dropdown(
            models,
            value=values["model.id"],
            label="Base model",
            info="Or type any Hugging Face id, such as gpt2, or a folder on this machine.",
            allow_custom_value=True,
            interactive=True,
            elem_id="model",
        )
        form.parts["model_card"] = gr.HTML(elem_id="model-card")
        with gr.Accordion("Expert settings", open=False, elem_classes="ps-expert"), gr.Row():
            form.fields["model.revision"] = gr.Textbox(
                values["model.revision"], label="Revision", info="Branch, tag or commit on the Hub.", interactive=True
            )
            form.fields["model.dtype"] = gr.Dropdown(
                ["auto", "float32", "bfloat16", "float16"],
                value=values["model.dtype"],
                label="Number format",
                info="auto: 32 bits on a CPU, bfloat16 on a GPU.",
                interactive=True,
            )
            form.fields["model.quantization"] = gr.Dropdown(
                ["none", "8bit", "4bit"],
                value=values["model.quantization"],
                label="Quantization",
                info="Squeezes a large model into less memory.",
                interactive=True,
            )
        form.notices[1] = gr.HTML(elem_classes="ps-slot")


def build_data_step(form: Form, samples: list[tuple[str, str]], values: dict[str, Any]) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(2, "Data", "Rows with something to read and something to write; a few hundred will do."))
        with gr.Row(equal_height=True):
            form.parts["sample"] = gr.Radio(
                samples, label="Start from a sample", interactive=True, elem_id="sample", min_width=220
            )
            with gr.Column(min_width=220, elem_classes="ps-drop"):
                gr.HTML(field_label("… or drop in a file of yours", "CSV, TSV, JSON, JSONL or Parquet"))
                form.parts["upload"] = gr.File(show_label=False, file_types=DATA_FILES, height=124, elem_id="upload")
        form.fields["data.source"] = gr.Textbox(
            values["data.source"],
            label="Rows from",
            info="Filled in by the choices above. Also takes a path, or hub:OWNER/NAME for a data set of the Hub.",
            max_lines=1,
            interactive=True,
            elem_id="source",
        )
        form.parts["columns"] = gr.HTML(elem_id="columns")
        form.fields["data.format"] = gr.Radio(
            [("Question and answer", "prompt-completion"), ("Chat", "chat"), ("Plain text", "text")],
            value=values["data.format"],
            label="What a row is",
            interactive=True,
            elem_id="format",
        )
        with gr.Row():
            form.fields["data.prompt"] = gr.Textbox(
                values["data.prompt"],
                label="The model reads",
                info="Columns stand in double braces.",
                lines=2,
                interactive=True,
                elem_id="prompt-template",
            )
            form.fields["data.completion"] = gr.Textbox(
                values["data.completion"],
                label="The model learns to write",
                info="Left empty: guessed from the columns.",
                lines=2,
                interactive=True,
                elem_id="completion-template",
            )
            form.fields["data.messages"] = gr.Textbox(
                values["data.messages"],
                label="Column with the messages",
                info="A list of turns with role and content; only the assistant's turns are learned.",
                interactive=True,
                visible=False,
            )
        with gr.Accordion("Expert settings", open=False, elem_classes="ps-expert"), gr.Row():
            form.fields["data.validation"] = gr.Textbox(
                values["data.validation"],
                label="Held-back rows",
                info="A share (0.1), a number of rows (40), or a second file's path. 0 holds none back.",
                interactive=True,
            )
            form.fields["data.max_length"] = gr.Number(
                values["data.max_length"],
                label="Longest row, in tokens",
                info="Longer rows are left out and reported.",
                precision=0,
                interactive=True,
            )
        form.notices[2] = gr.HTML(elem_classes="ps-slot", elem_id="data-notice")
        gr.HTML(heading("As the model will see it"))
        form.parts["preview"] = gr.HTML(busy_notice("Reading the rows …"), elem_id="preview")


def build_prefix_step(form: Form, values: dict[str, Any]) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(3, "Prefix", "Virtual tokens that stand in front of every prompt: all that is trained."))
        form.fields["prefix.num_virtual_tokens"] = gr.Slider(
            1,
            200,
            value=values["prefix.num_virtual_tokens"],
            step=1,
            label="Virtual tokens",
            info="More can hold more, and cost a little speed. 10 to 50 suits most tasks.",
            interactive=True,
            elem_id="virtual-tokens",
        )
        form.fields["prefix.init"] = gr.Radio(
            [("A text", "text"), ("Random", "random"), ("Zero", "zero")],
            value=values["prefix.init"],
            label="Start from",
            info=INIT_HELP,
            interactive=True,
            elem_id="init",
        )
        form.fields["prefix.init_text"] = gr.Textbox(
            values["prefix.init_text"],
            label="Starting text",
            lines=2,
            max_lines=8,
            interactive=True,
            elem_id="init-text",
        )
        form.fields[AS_LONG_AS_TEXT] = gr.Checkbox(
            values[AS_LONG_AS_TEXT], label="As many virtual tokens as the text has", interactive=True
        )
        with gr.Accordion("Expert settings", open=False, elem_classes="ps-expert"), gr.Row():
            form.fields["prefix.prefix_projection"] = gr.Checkbox(
                values["prefix.prefix_projection"],
                label="Learn through a projection",
                info="A small network writes the prefix: steadier at high learning rates, slower.",
                interactive=True,
            )
            form.fields["prefix.encoder_hidden_size"] = gr.Number(
                values["prefix.encoder_hidden_size"],
                label="Width of the projection",
                info="Empty: chosen for you.",
                precision=0,
                interactive=True,
            )
        form.notices[3] = gr.HTML(elem_classes="ps-slot")


def build_training_step(form: Form, values: dict[str, Any]) -> None:
    def number(key: str, label: str, info: str, whole: bool = True, **more: Any) -> None:
        form.fields[f"training.{key}"] = gr.Number(
            values[f"training.{key}"],
            label=label,
            info=info,
            precision=0 if whole else None,
            step=1 if whole else 0.01,
            interactive=True,
            **more,
        )

    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(4, "Training", "The values below suit the chosen model; change them when curious."))
        with gr.Row():
            number("num_train_epochs", "Passes over the rows", "Epochs.", whole=False, elem_id="epochs")
            number("max_steps", "Or stop after steps", "Wins over the passes when filled in.", elem_id="max-steps")
        with gr.Row():
            number("per_device_train_batch_size", "Rows at a time", "The batch size.", elem_id="batch-size")
            number("learning_rate", "Learning rate", "How far each step goes.", whole=False, elem_id="learning-rate")
        with gr.Accordion("Expert settings", open=False, elem_classes="ps-expert"):
            with gr.Row():
                form.fields["training.lr_scheduler_type"] = gr.Dropdown(
                    ["linear", "cosine", "constant", "constant_with_warmup"],
                    value=values["training.lr_scheduler_type"],
                    label="Schedule",
                    info="How the learning rate changes over the run.",
                    interactive=True,
                )
                number("warmup_steps", "Warm-up", "Steps, or a share below 1.", whole=False)
                number("weight_decay", "Weight decay", "Pulls the prefix towards zero.", whole=False)
            with gr.Row():
                number("max_grad_norm", "Gradient clipping", "Largest norm of a step's gradient.", whole=False)
                number("gradient_accumulation_steps", "Accumulate", "Batches added up before a step.")
                number("seed", "Seed", "Same seed, same run.")
            with gr.Row():
                number("eval_steps", "Check every", "Steps; empty: about ten checks a run.")
                number("save_steps", "Checkpoint every", "Steps; empty: every minute.")
                number("early_stopping_patience", "Patience", "Stop after so many checks without progress.")
            with gr.Row():
                number("per_device_eval_batch_size", "Rows at a time in checks", "The evaluation batch size.")
                form.fields["evaluation.samples"] = gr.Number(
                    values["evaluation.samples"],
                    label="Answers written out",
                    info="Held-back rows answered at the end.",
                    precision=0,
                    interactive=True,
                )
                form.fields["evaluation.max_new_tokens"] = gr.Number(
                    values["evaluation.max_new_tokens"],
                    label="Longest answer, in tokens",
                    info="For those answers.",
                    precision=0,
                    interactive=True,
                )
            with gr.Row():
                form.fields["evaluation.metrics"] = gr.CheckboxGroup(
                    [("Loss", "loss"), ("Exact match", "exact_match"), ("BLEU", "bleu")],
                    value=values["evaluation.metrics"],
                    label="Measured on held-back rows",
                    interactive=True,
                )
                form.fields["training.gradient_checkpointing"] = gr.Checkbox(
                    values["training.gradient_checkpointing"],
                    label="Gradient checkpointing",
                    info="Less memory, more time.",
                    interactive=True,
                )
        form.notices[4] = gr.HTML(elem_classes="ps-slot")


def build_summary(form: Form, values: dict[str, Any]) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(heading("Your run"))
        form.fields["name"] = gr.Textbox(
            values["name"], label="Name", placeholder="restaurants", max_lines=1, interactive=True, elem_id="run-name"
        )
        form.parts["words"] = gr.HTML(elem_id="words")
        form.parts["estimate"] = gr.HTML(busy_notice("Measuring a few steps on this machine …"), elem_id="estimate")
        form.notices[0] = gr.HTML(elem_classes="ps-slot", elem_id="summary-notice")
        form.parts["start"] = gr.Button("Start", variant="primary", size="lg", elem_id="start")
    with gr.Accordion("The recipe", open=False, elem_classes="ps-card ps-recipe"):
        form.parts["yaml"] = gr.Code(
            language="yaml", label="recipe.yaml", interactive=True, max_lines=24, elem_id="yaml", wrap_lines=True
        )
        form.parts["yaml_notice"] = gr.HTML(elem_classes="ps-slot")
        form.parts["load_yaml"] = gr.Button("Fill the form from this recipe", size="sm")
        form.parts["command"] = gr.Code(
            language="shell", label="The same run on the command line", interactive=False, wrap_lines=True, lines=1
        )
        form.parts["reset"] = gr.Button("Start over with the defaults", size="sm")
