"""The app as a hosted Gradio Space starts it; on your own machine use `workbench app`."""

from workbench.app.serve import serve_hosted

if __name__ == "__main__":
    serve_hosted()
