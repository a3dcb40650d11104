"""The one trainer: objectives, batches, averages, optimizers, logs."""
