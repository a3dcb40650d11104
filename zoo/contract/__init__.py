"""What a plug-in sees: domain, codec, dataset, samples, conditions, recipe, and the registry of names."""
