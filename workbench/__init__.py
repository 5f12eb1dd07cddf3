"""The workbench: command line, notebook panels and app over `spark_kernel`."""
