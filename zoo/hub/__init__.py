"""The Hugging Face Hub: addresses, the client, pushes, model cards."""
