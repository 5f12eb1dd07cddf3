"""SPARK: one model as policy and as its own judge. The library under the workbench.

Nothing is imported here, so that a bare GPU machine can use one stage without the others' dependencies.
Start with `spark_kernel.training.trainer.Trainer`; the records that flow between stages are in `spark_kernel.records`.
"""

__version__ = "0.1.0"
