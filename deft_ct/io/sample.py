"""The DICOM series that ships with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def sample_series_path() -> Path:
    """Folder of the sample series: eight consecutive chest CT slices of LIDC-IDRI-0314, 512 x 512, 1 mm apart.

    From the collection LIDC-IDRI of The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX, licensed CC BY 3.0;
    ``ATTRIBUTION.md`` next to the folder has the citations.

    Raises:
        FileNotFoundError: the package was installed without its assets.
    """
    folder = Path(str(files("deft_ct"))) / "assets" / "sample_series" / "LIDC-IDRI-0314"
    if not folder.is_dir():
        raise FileNotFoundError(f"the sample series is missing from the installation ({folder}); install deft-ct again")
    return folder
