"""A recipe with weights: plans, sampling, golden outputs, model folders in and out."""
