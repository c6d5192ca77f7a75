"""The Tune page's components: four numbered steps beside a summary. No handlers here.

`build_form` lays them out inside the current block and returns them by name; a field's key is its place in the recipe.
What a beginner can leave alone is folded away in each step, and laid out by `expert_fields`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from prefix_studio.settings import ASSETS
from prefix_studio.ui.expert_fields import expert_data, expert_model, expert_prefix, expert_training
from prefix_studio.ui.fields import Fields
from prefix_studio.ui.form import AS_LONG_AS_TEXT, LEARNING_RATE, LENGTH
from prefix_studio.ui.fragments import busy_notice, field_label, heading, step_heading
from prefix_studio.ui.model_html import LOOKING

LONGEST_OFFERED = 200  # virtual tokens; a recipe that asks for more stretches the slider
DATA_FILES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]
INIT_HELP = (
    "Where training starts matters more than any other setting. Try a short neutral text first, such as "
    "“Question: ”; then a longer one about your task. With “Zero” and no projection all virtual tokens stay alike: a "
    "quick check, not more."
)
RATE_HELP = "How far a step goes; the default suits model and prefix."
WHAT_IS_A_PREFIX = """
A language model reads a prompt and keeps, in each of its layers, notes on every token (its *keys* and *values*).
**Prefix tuning** puts a few made-up tokens in front, the *virtual tokens*, and trains nothing but their notes.
The model itself stays as it was, so what you take home is small, and one model can serve many tasks.
"""


@dataclass
class Form:
    """The components of the Tune page. fields: by recipe key, in the order handlers get their values."""

    fields: Fields
    notices: dict[int, gr.HTML] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)


def build_form(models: list[tuple[str, str]], samples: list[tuple[str, str]], values: dict[str, Any]) -> Form:
    """Lays out the page. models, samples: label and value of each choice; values: what the fields open with."""
    form = Form(Fields(values))
    with gr.Row(elem_classes="ps-tune"):
        with gr.Column(scale=5, min_width=320, elem_classes="ps-steps"):
            with gr.Accordion("What is a prefix?", open=False, elem_classes="ps-help"):
                gr.HTML((ASSETS / "prefix-picture.svg").read_text(encoding="utf-8"), elem_classes="ps-picture")
                gr.Markdown(WHAT_IS_A_PREFIX)
            build_model_step(form, models)
            build_data_step(form, samples)
            build_prefix_step(form)
            build_training_step(form)
        with gr.Column(scale=3, min_width=300, elem_classes="ps-summary"):
            build_summary(form)
    return form


def build_model_step(form: Form, models: list[tuple[str, str]]) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(1, "Model", "The model that learns. The first one is here already and needs no download."))
        form.fields.one_of(
            "model.id",
            "Base model",
            "Or type any Hugging Face id, such as gpt2, or a folder on this machine.",
            models,
            allow_custom_value=True,
            elem_id="model",
        )
        form.parts["model_card"] = gr.HTML(LOOKING, elem_id="model-card")
        expert_model(form.fields)
        form.notices[1] = gr.HTML(elem_classes="ps-slot")


def build_data_step(form: Form, samples: list[tuple[str, str]]) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(2, "Data", "Rows with something to read and something to write; a few hundred will do."))
        with gr.Row(equal_height=True):
            form.parts["sample"] = gr.Radio(
                samples, label="Start from a sample", interactive=True, elem_id="sample", min_width=220
            )
            with gr.Column(min_width=220, elem_classes="ps-drop"):
                gr.HTML(field_label("… or drop in a file of yours", "CSV, TSV, JSON, JSONL or Parquet"))
                form.parts["upload"] = gr.File(show_label=False, file_types=DATA_FILES, height=124, elem_id="upload")
        form.fields.text(
            "data.source",
            "Rows from",
            "Filled in by the choices above. Also takes a path, or hub:OWNER/NAME for a data set of the Hub.",
            max_lines=1,
            elem_id="source",
        )
        form.parts["columns"] = gr.HTML(elem_id="columns")
        form.fields.radio(
            "data.format",
            "What a row is",
            None,
            [("Question and answer", "prompt-completion"), ("Chat", "chat"), ("Plain text", "text")],
            elem_id="format",
        )
        with gr.Row():
            form.fields.text(
                "data.prompt",
                "The model reads",
                "Columns stand in double braces.",
                lines=2,
                elem_id="prompt-template",
            )
            form.fields.text(
                "data.completion",
                "The model learns to write",
                "Left empty: guessed from the columns.",
                lines=2,
                elem_id="completion-template",
            )
            form.fields.text(
                "data.messages",
                "Column with the messages",
                "A list of turns with role and content; only the assistant's turns are learned.",
                visible=False,
            )
        expert_data(form.fields)
        form.notices[2] = gr.HTML(elem_classes="ps-slot", elem_id="data-notice")
        gr.HTML(heading("As the model will see it"))
        form.parts["preview"] = gr.HTML(busy_notice("Reading the rows …"), elem_id="preview")


def build_prefix_step(form: Form) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(3, "Prefix", "Virtual tokens that stand in front of every prompt: all that is trained."))
        form.fields.slider(
            LENGTH,
            "Virtual tokens",
            "More can hold more, and cost a little speed. 10 to 50 suits most tasks.",
            1,
            LONGEST_OFFERED,
            elem_id="virtual-tokens",
        )
        form.fields.radio(
            "prefix.init",
            "Start from",
            INIT_HELP,
            [("A text", "text"), ("Random", "random"), ("Zero", "zero")],
            elem_id="init",
        )
        form.fields.text(
            "prefix.init_text",
            "Starting text",
            "Repeated where it is shorter than the virtual tokens, cut where it is longer.",
            lines=2,
            max_lines=8,
            elem_id="init-text",
        )
        form.fields.tick(AS_LONG_AS_TEXT, "As many virtual tokens as the text has", None)
        expert_prefix(form.fields)
        form.notices[3] = gr.HTML(elem_classes="ps-slot")


def build_training_step(form: Form) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(step_heading(4, "Training", "The values below suit the chosen model; change them when curious."))
        with gr.Row():
            form.fields.fraction("training.num_train_epochs", "Passes over the rows", "Epochs.", elem_id="epochs")
            form.fields.number(
                "training.max_steps", "Or stop after steps", "Wins over the passes when filled in.", elem_id="max-steps"
            )
        with gr.Row():
            form.fields.number(
                "training.per_device_train_batch_size", "Rows at a time", "The batch size.", elem_id="batch-size"
            )
            form.fields.fraction(LEARNING_RATE, "Learning rate", RATE_HELP, elem_id="learning-rate")
        expert_training(form.fields)
        form.notices[4] = gr.HTML(elem_classes="ps-slot")


def build_summary(form: Form) -> None:
    with gr.Column(elem_classes="ps-card"):
        gr.HTML(heading("Your run"))
        form.fields.text("name", "Name", None, placeholder="restaurants", max_lines=1, elem_id="run-name")
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
