"""Files of real scanners: read with geometry and HU exact in independent readers, or refused in one clear sentence."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from deft_ct.io import Series, read_dicom_series, write_dicom_series, write_nifti
from deft_ct.io.errors import ReadError

READ = {
    "compressed": "1.3.6.1.4.1.14519.5.2.1.6279.6001.154677396354641150280013275227",
    "enhanced_multiframe": None,
    "gantry_tilt": None,
    "orientation": None,
    "padding": None,
    "pet_ct_mixed": None,
}
SLICES = {
    "compressed": 2,
    "enhanced_multiframe": 6,
    "gantry_tilt": 6,
    "orientation": 1,
    "padding": 2,
    "pet_ct_mixed": 5,
}

pytestmark = pytest.mark.data


@pytest.fixture
def root(data_root: Path) -> Path:
    folder = data_root / "dicom_cases"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def by_pydicom(path: Path) -> dict[tuple[float, ...], tuple[np.ndarray, list[float], list[float]]]:
    """Position -> HU, orientation and spacing of the images of a file, by pydicom and the attributes alone."""
    image = pydicom.dcmread(path)
    if image.get("Modality") != "CT":
        return {}
    if "PerFrameFunctionalGroupsSequence" not in image:
        hu = image.pixel_array.astype(float) * float(image.RescaleSlope) + float(image.RescaleIntercept)
        place = tuple(float(v) for v in image.ImagePositionPatient)
        return {place: (hu, list(image.ImageOrientationPatient), list(image.PixelSpacing))}
    shared = image.SharedFunctionalGroupsSequence[0]
    value = shared.PixelValueTransformationSequence[0]
    found = {}
    for frame, stored in zip(image.PerFrameFunctionalGroupsSequence, image.pixel_array, strict=True):
        place = tuple(float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient)
        found[place] = (
            stored.astype(float) * float(value.RescaleSlope) + float(value.RescaleIntercept),
            list(shared.PlaneOrientationSequence[0].ImageOrientationPatient),
            list(shared.PixelMeasuresSequence[0].PixelSpacing),
        )
    return found


@pytest.mark.parametrize("case", READ)
def test_slices_are_those_of_pydicom(root: Path, case: str) -> None:
    series = read_dicom_series(root / case, series_uid=READ[case])
    expected = {}
    for path in sorted((root / case).iterdir()):
        expected |= by_pydicom(path)
    assert len(series) == SLICES[case] and series.findings == ()
    for n, header in enumerate(series.headers):
        hu, orientation, spacing = expected[tuple(float(v) for v in header.ImagePositionPatient)]
        np.testing.assert_array_equal(series.hu[n], np.maximum(hu, -1024))
        assert [float(v) for v in header.ImageOrientationPatient] == [float(v) for v in orientation]
        np.testing.assert_allclose(series.volume.affine @ [0, 0, n, 1], [*header.ImagePositionPatient, 1], atol=0.01)
        np.testing.assert_allclose(series.volume.spacing_mm, np.array(spacing, float), atol=1e-9)
    if case == "padding":
        assert any(change.startswith("111,544 of 524,288 pixels hold the Pixel") for change in series.changes)
    if case == "gantry_tilt":
        assert "the gantry is tilted by 16.5 degrees" in series.changes[0] and series.volume.is_sheared


@pytest.mark.parametrize("path", ["original_jpeg2000_lossless_pancreas_ct.dcm", "transcoded_jpegls_lossless_1.dcm"])
def test_single_compressed_files(root: Path, path: str) -> None:
    ((hu, _, _),) = by_pydicom(root / "compressed" / path).values()
    np.testing.assert_array_equal(read_dicom_series(root / "compressed" / path).hu[0], np.maximum(hu, -1024))


@pytest.mark.parametrize("name", ["p001_coronal_289142.dcm", "p001_sagittal_377761.dcm"])
def test_reformats_are_not_taken_for_axial_slices(root: Path, name: str) -> None:
    with pytest.raises(ReadError, match="the slices are not axial"):
        read_dicom_series(root / "reformat" / name)


def small(series: Series) -> Series:
    """At a quarter of the size, as a result of a reconstruction has it."""
    return series.fitted(128)


@pytest.mark.parametrize("case", ["enhanced_multiframe", "gantry_tilt", "orientation", "padding"])
def test_what_is_derived_is_the_same_in_four_readers(root: Path, tmp_path: Path, case: str) -> None:
    series = small(read_dicom_series(root / case))
    written = write_dicom_series(series.volume, like=series, folder=tmp_path / "out")
    write_nifti(series.volume, tmp_path / "x.nii.gz")
    files = [pydicom.dcmread(path) for path in written.mean]

    for n, file in enumerate(files):  # pydicom
        hu = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        assert np.abs(hu - series.hu[n]).max() <= 0.5
        corner = np.array(file.ImagePositionPatient, float)
        np.testing.assert_allclose(corner, (series.volume.affine @ [0, 0, n, 1])[:3], atol=1e-3)

    image = nib.load(tmp_path / "x.nii.gz")  # nibabel
    np.testing.assert_allclose(image.affine, series.volume.ras_affine, atol=1e-4)
    np.testing.assert_allclose(np.asarray(image.dataobj).transpose(2, 1, 0), series.hu, atol=1e-3)

    sitk = pytest.importorskip("SimpleITK")
    for n, path in enumerate(written.mean):
        one = sitk.ReadImage(str(path))
        assert np.abs(sitk.GetArrayFromImage(one)[0] - series.hu[n]).max() <= 0.51
        for index in ((0, 0, 0), (127, 3, 0), (5, 127, 0)):
            place = (series.volume.affine @ [index[0], index[1], n, 1])[:3]
            np.testing.assert_allclose(one.TransformIndexToPhysicalPoint(index), place, atol=1e-2)

    highdicom = pytest.importorskip("highdicom")
    for n, file in enumerate(files):
        one = highdicom.Image.from_dataset(file)
        values = one.get_total_pixel_matrix() if hasattr(one, "is_tiled") and one.is_tiled else one.get_frame(1)
        assert np.abs(values - series.hu[n]).max() <= 0.51
