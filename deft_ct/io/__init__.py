"""Reading and writing: DICOM, NIfTI and HDF5, all of it whole or not at all."""

from __future__ import annotations

from deft_ct.io.dicom_files import DicomSeriesError
from deft_ct.io.dicom_read import read_all_dicom_series, read_dicom_series
from deft_ct.io.dicom_write import DicomOptions, WrittenSeries, write_dicom_series
from deft_ct.io.hdf5 import read_hdf5, write_hdf5
from deft_ct.io.nifti import read_nifti, write_nifti
from deft_ct.io.sample import sample_series_path
from deft_ct.io.series import Series
from deft_ct.io.volume_series import Chosen, read_series

__all__ = [
    "Chosen",
    "DicomOptions",
    "DicomSeriesError",
    "Series",
    "WrittenSeries",
    "read_all_dicom_series",
    "read_dicom_series",
    "read_hdf5",
    "read_nifti",
    "read_series",
    "sample_series_path",
    "write_dicom_series",
    "write_hdf5",
    "write_nifti",
]
