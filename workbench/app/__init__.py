"""The Gradio app: self-reflection live, and a run to look through. It reads runs and models and writes neither.

`workbench.app.page` puts the page together, `serve` starts it; `access` and `guard` are what keeps others out.
"""
