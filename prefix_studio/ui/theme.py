"""The page's look: Gradio's base theme in the studio's colours, and the style sheet on top of it.

Fonts are the ones Gradio ships, so nothing is fetched from outside.
"""

from __future__ import annotations

from gradio.themes import Base
from gradio.themes.utils import colors, fonts, sizes

from prefix_studio.settings import ASSETS

STYLE_SHEET = ASSETS / "style.css"
ICON = ASSETS / "icon.png"

PINE = colors.Color(
    name="pine",
    c50="#eefaf6",
    c100="#d5f2e8",
    c200="#aee4d3",
    c300="#79cfb8",
    c400="#43b398",
    c500="#1f967d",
    c600="#147965",
    c700="#136153",
    c800="#134d43",
    c900="#124038",
    c950="#052520",
)


def studio_theme() -> Base:
    """Pine green on slate; amber is kept for virtual tokens alone."""
    return Base(
        primary_hue=PINE,
        secondary_hue=PINE,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_lg,
        spacing_size=sizes.spacing_md,
        text_size=sizes.text_md,
        # Gradio ships the semibold files without most letters; regular and bold are whole.
        font=(fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0c1220",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="#131b2b",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="#0f1726",
        block_background_fill="white",
        block_background_fill_dark="#131b2b",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="600",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_size="*text_sm",
        block_padding="0px",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#26324a",
        input_background_fill="white",
        input_background_fill_dark="#0f1726",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="#2d3a55",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="white",
        button_primary_text_color_dark="#04130f",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#1a2436",
        button_secondary_background_fill_hover_dark="#22304a",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#2d3a55",
        button_border_width="1px",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_500",
        checkbox_border_color_selected="*primary_600",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="#12352f",
        checkbox_label_border_color_selected="*primary_500",
        checkbox_label_text_color_selected="*primary_800",
        checkbox_label_text_color_selected_dark="*primary_200",
    )
