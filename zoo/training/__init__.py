"""The one trainer: objectives, batches, averages, optimizers, logs."""

#: how a net may be compiled for a run, in torch's words
COMPILED = ("default", "reduce-overhead", "max-autotune")
