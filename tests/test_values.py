"""Records that code passes on are not changed by who gets them.

The records of the operators, measurements, samplers, guided methods and readers. They are looked at from outside, so
the mutation test shows each changed ``frozen=True`` to this file.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from contextlib import suppress
from typing import Any

import pytest

PACKAGES = (
    "deft_ct.operators", "deft_ct.measurement", "deft_ct.diffusion.samplers", "deft_ct.methods.guided", "deft_ct.io",
    "deft_ct.datasets",
)  # fmt: skip


def _records() -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {}
    for package in map(importlib.import_module, PACKAGES):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with suppress(ImportError):  # of optional libraries
                module = importlib.import_module(info.name)
                classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == info.name]
                found |= {f"{info.name}.{c.__name__}": c for c in classes if dataclasses.is_dataclass(c)}
    return {name: record for name, record in found.items() if not inspect.isabstract(record)}


RECORDS = _records()  # imported here: no test below runs a line of them


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_cannot_be_changed(name: str) -> None:
    record = RECORDS[name]
    empty = object.__new__(record)
    field = dataclasses.fields(record)[0].name if dataclasses.fields(record) else "anything"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(empty, field, 1)


@pytest.mark.parametrize(
    "name",
    [
        "deft_ct.io.series.Series", "deft_ct.io.sinograms.RawSinogram", "deft_ct.io.dicom_ct_pd.Projection",
        "deft_ct.datasets.data_exchange.DataExchangeScan", "deft_ct.datasets.htc2022.HTCScan",
        "deft_ct.datasets.ldct_projection.HelicalProjections", "deft_ct.datasets.sinogram_scan.SinogramScan",
        "deft_ct.datasets.walnuts.WalnutScan", "deft_ct.operators.ct.alignment.AlignmentResult",
        "deft_ct.operators.ct.helix.HelicalScan",
    ],
)  # fmt: skip
def test_records_of_arrays_are_equal_to_themselves_alone(name: str) -> None:
    """Arrays have no single answer to ``==``, so such records compare by identity, and can be put into sets."""
    one, two = (object.__new__(RECORDS[name]) for _ in range(2))
    assert one == one and one != two and len({one, two}) == 2


BY_KEYWORD = {
    "datasets": "ellipsoids.Ellipsoid phantoms.Ellipse sinogram_scan.ScanSetUp synthetic_ct_pd.SyntheticScan "
    "walnuts.WalnutScanOptions",
    "io": "dicom_read._Wanted dicom_write.DicomOptions limits.Limits sinograms.SinogramOptions untrusted.HDF5Item "
    "volume_series.Chosen",
    "methods.guided": "config.ConjugateGradientConfig config.SamplerConfig config.SliceCouplingConfig "
    "config.StepsConfig config.WarmStartConfig daps.DAPSConfig ddnm.DDNMConfig ddrm.DDRMConfig dds.DDSConfig "
    "diffpir.DiffPIRConfig dps.DPSConfig mcg.MCGConfig pigdm.PiGDMConfig reddiff.REDDiffConfig sampling.Chunk "
    "unconditional.UnconditionalConfig",
    "operators": "feature_images.FeatureImage image_values.ImageValues",
    "operators.ct": "cone.ConeGeometry faults.DeadDetectors faults.RingArtefact geometry.FanGeometry "
    "geometry.PlanarGeometry helix.HelicalScan helix.VolumeGrid presets.ScanPreset rays.JosephRays rays.JosephRays3D "
    "rays.Rays scan.ScanGeometry vector_geometry.VectorConeGeometry vector_geometry.VectorFanGeometry "
    "vectors.ScanVectors",
}
"""Options, geometries and other records of many numbers: in a row they could be any way round."""


def test_records_of_many_numbers_are_made_by_keyword() -> None:
    named = {f"deft_ct.{package}.{name}" for package, names in BY_KEYWORD.items() for name in names.split()}
    assert named <= set(RECORDS)

    def own(record: type[Any]) -> list[dataclasses.Field[Any]]:
        return [field for field in dataclasses.fields(record) if field.name in vars(record).get("__annotations__", {})]

    found = {name for name, record in RECORDS.items() if any(field.kw_only for field in own(record))}
    assert named <= found
