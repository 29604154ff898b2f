"""Methods as text."""

from __future__ import annotations

import pytest

from deft_ct.cli.options import parse_models
from deft_ct.methods.method_text import method_variants, parse_method, parse_methods, split_methods


def test_options_are_literals_or_text() -> None:
    assert parse_method("dds:steps=20,start_from=tv,start=0.1") == (
        "dds", {"steps": 20, "start_from": "tv", "start": 0.1}
    )  # fmt: skip
    assert parse_method("fbp") == ("fbp", {})


def test_text_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="expected option=value in 'tv:strong', got 'strong'"):
        parse_method("tv:strong")
    with pytest.raises(ValueError, match="prior in 'dps:prior=x' is an option of the command"):
        parse_method("dps:prior=x")


def test_a_comma_separates_methods_and_options() -> None:
    assert split_methods(["fbp,tv:strength=80,iterations=20", "dds"]) == ["fbp", "tv:strength=80,iterations=20", "dds"]


def test_variants_are_all_combinations() -> None:
    assert method_variants("tv") == ["tv"]
    assert method_variants("tv:a=1|2,b=3") == ["tv:a=1,b=3", "tv:a=2,b=3"]


def test_a_method_that_is_there_twice_is_refused() -> None:
    """Where results are kept by the name of the method; the last one would win in silence."""
    assert parse_methods(["fbp:filter=hann", "tv"]) == {"fbp": {"filter": "hann"}, "tv": {}}
    with pytest.raises(ValueError, match="fbp is there twice in 'fbp fbp:filter=hann'"):
        parse_methods(["fbp", "fbp:filter=hann"])


def test_a_model_that_is_there_twice_is_refused() -> None:
    assert parse_models(["fbp_unet=a", "learned_primal_dual=b"]) == {"fbp_unet": "a", "learned_primal_dual": "b"}
    with pytest.raises(ValueError, match="--model names fbp_unet twice, as 'a' and 'b'"):
        parse_models(["fbp_unet=a", "fbp_unet=b"])
