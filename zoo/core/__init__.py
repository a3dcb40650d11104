"""The mathematics of diffusion: schedules, loss, guidance, samplers. No files, no nets, no domain."""
