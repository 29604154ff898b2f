"""Guided diffusion: a frozen prior is sampled together with the likelihood of the data. One file a paper."""
