"""Data sets and measured scans: slice datasets, LoDoPaB-CT, AAPM 2016, DICOM-CT-PD, HTC2022, Data Exchange, folders."""

from __future__ import annotations

from deft_ct.datasets.aapm import AAPMChallenge
from deft_ct.datasets.data_exchange import DataExchangeScan, estimate_center, read_data_exchange
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.htc2022 import HTCScan, read_htc2022
from deft_ct.datasets.images import PhotoCrops, PhotoFolder
from deft_ct.datasets.ldct_projection import HelicalProjections, find_projection_series, read_projections
from deft_ct.datasets.lodopab import LoDoPaB, LoDoPaBSample
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.datasets.slices import CTSlice

__all__ = [
    "AAPMChallenge",
    "CTFolder",
    "CTPack",
    "CTSlice",
    "DataExchangeScan",
    "Ellipse",
    "EllipsePhantom",
    "HTCScan",
    "HelicalProjections",
    "LoDoPaB",
    "LoDoPaBSample",
    "PhotoCrops",
    "PhotoFolder",
    "data_root",
    "estimate_center",
    "find_projection_series",
    "read_data_exchange",
    "read_htc2022",
    "read_projections",
]
