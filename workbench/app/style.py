"""The page's look: Gradio's theme in this project's blue, with the system's fonts, so that nothing is fetched."""

from __future__ import annotations

from importlib import resources

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Helvetica", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
BLUE = gr.themes.Color(
    c50="#eef6fb", c100="#d9eaf6", c200="#b6d6ec", c300="#86bbdf", c400="#4f9acb", c500="#2f7fb8", c600="#22679a",
    c700="#1d547e", c800="#1b4768", c900="#193c57", c950="#10263a", name="spark-blue",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Light and dark alike."""
    return gr.themes.Base(primary_hue=BLUE, neutral_hue="slate", font=list(SANS), font_mono=list(MONO)).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#14171c",
        block_background_fill="white",
        block_background_fill_dark="#1c2027",
        background_fill_secondary_dark="#232830",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="#a9b3c1",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="#a9b3c1",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
        border_color_primary_dark="#39414d",
    )


def css() -> str:
    """The page's style sheet."""
    return _text("page.css")


def head() -> str:
    """What goes into the page's head: its script."""
    return f"<script>{_text('page.js')}</script>"


def _text(name: str) -> str:
    return (resources.files("workbench.app") / name).read_text(encoding="utf-8")
