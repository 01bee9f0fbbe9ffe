"""What a reader of images returns, and the closed set of reasons for which it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from datamodules.dicom.remarks import Remark

# Bounds on what one study may allocate: a file is written by whoever sent it. 2^29 voxels are 2 GiB of float32,
# 2048 slices of 512 x 512; the widest CT matrices sold are 2048.
MAX_VOXELS = 2**29
MAX_SIDE = 4096
MAX_FILES = 20_000
MAX_FILE_BYTES = 2**30
MAX_MASK_BYTES = 2**32


class Reason(Enum):
    """Why a study was not read. Sentences without identifiers: they are counted, and the counts may leave the site."""

    FOLDER_MISSING = "the study's folder or file does not exist"
    OUTSIDE_FOLDER = "the file is a link that leads out of its folder"
    NO_DICOM = "the folder holds no DICOM file"
    TOO_LARGE = "the study is larger than the reader allows"
    CORRUPT = "the files are damaged and could not be parsed"
    DAMAGED_BESIDE = "files beside the images are empty or damaged, and may be slices that are lost"
    SEVERAL_PATIENTS = "the folder holds images of more than one PatientID"
    SERIES_OF_EACH = "slices of one scan name different series (SeriesInstanceUID)"
    FRAMES_OF_REFERENCE = "slices of one series name different frames of reference"
    MIXED_ORIENTATION = "slices of one series differ in orientation"
    MIXED_SIZE = "slices of one series differ in size or field of view"
    SEVERAL_SCANS = "one series holds several scans that nothing tells apart, or that continue one another"
    NO_SUCH_MODALITY = "the study holds no image of the wanted modality"
    ONLY_LOCALIZERS = "the study holds localizers or projections alone"
    MULTIFRAME = "an image holds several frames without a place for each (no enhanced multi-frame object)"
    MISSING_GEOMETRY = "position, orientation or pixel spacing is missing"
    INVALID_GEOMETRY = "position, orientation or pixel spacing has impossible values"
    NOT_AXIAL = "the images are not axial"
    OBLIQUE = "the images are tilted by more than 15 degrees out of the axial plane"
    GANTRY_TILT = "the gantry was tilted, so that the slices are sheared"
    MISSING_SLICES = "slices are missing in between"
    UNEVEN_SPACING = "the distance between slices is not constant"
    CONFLICTING_DUPLICATES = "one slice is stored twice with different content"
    MISSING_THICKNESS = "a single slice without a slice thickness"
    NOT_GRAYSCALE = "the images are not single-channel grayscale"
    NOT_HOUNSFIELD = "the values cannot be converted to Hounsfield units"
    MODALITY_LUT = (
        "a lookup table (ModalityLUTSequence) says what the values mean, which is read of radiographs alone: export "
        "the scan with a rescale slope and intercept"
    )
    MATERIAL_MAP = (
        "the images were computed from several energies or phases (iodine, virtual non-contrast, monoenergetic, atomic "
        "number, electron density, perfusion), and are not the HU of the scan"
    )
    DOUBTFUL_SCALE = (
        "the slope of its scale (RescaleSlope, scl_slope) is near 1 and not 1, or is given to what are Hounsfield "
        "units as they are stored"
    )
    SCALE_NOT_FINITE = "the scale of the NIfTI (scl_slope, scl_inter) is not a number: write 1 and 0 for none"
    HIGH_BIT = "the bits of a pixel lie elsewhere than at its low end (HighBit is not BitsStored - 1)"
    BELOW_AIR = "values lie below -1100 HU, which is less than air, and are not declared as padding"
    ABOVE_METAL = "more values lie above 4096 HU than metal explains, as of signed pixels that are flagged unsigned"
    NO_AIR = (
        "no value is that of air, so the values are not Hounsfield units or air was cut away; a picture of 250 mm or "
        "less may lie within the body, if it names its field (ReconstructionDiameter)"
    )
    ZERO_AROUND = (
        "what lies around the body is 0, and no value is below it: these are gray levels, of MR or PET (declare the "
        "modality), or of a mask, and not HU, of which air is at -1000 and fat at -100"
    )
    SEVERAL_ACQUISITIONS = (
        "the folder holds several scans that fit as well and differ in study, contrast, time or place, and no label "
        "names one: keep in its folder the one that is meant"
    )
    UNEVEN_SCALE = "slices of one scan lie far apart in HU, as where some of them lost their rescale intercept or slope"
    BODY_ELSEWHERE = (
        "fat and soft tissue lie where neither does in HU, as of a lost rescale intercept or a wrong rescale slope"
    )
    AIR_ELSEWHERE = "the air around the body is not at -1000 HU (-1060 to -940), as with a wrong rescale intercept"
    PADDED_BODY = "pixels amid the body are declared as padding, so their value is not known"
    AMBIGUOUS_POLARITY = "it cannot be told whether dark is dense or light (MONOCHROME1, PresentationLUTShape)"
    NO_SUCH_VIEW = "the study holds no film of the wanted view (dataset.image.view)"
    NO_SUCH_PART = "the study holds no film of the wanted body part (dataset.image.body_part)"
    SEVERAL_PARTS = (
        "the study holds films of several body parts, and dataset.image.body_part does not say which to take"
    )
    FOR_PROCESSING = "the study holds raw films (FOR PROCESSING) alone, which are not made to be looked at"
    INVALID_NUMBER = "a number in the header is not written as DICOM writes one, as with a decimal comma"
    INVALID_DISPLAY = "the lookup table, the window or its function cannot be used to show the film"
    NO_PICTURE = (
        "the file is no picture of a kind that is read (PNG, JPEG, BMP, TIFF of 1 to 16 bits or gray floats of 32); "
        "colors of 16 bits in planes, and a byte order or layout that Pillow does not know, are to be saved anew"
    )
    SEVERAL_PAGES = "the picture has several pages"
    TRANSPARENT = (
        "the picture is transparent in part; the study may declare what is behind it (dataset.image.background)"
    )
    NO_RANGE = "its values are signed or floats, without a range of their own; dataset.image.values: stored takes them"
    NOT_AS_STORED = "16 bits of color, or a film in DICOM, is not read as stored; dataset.image.values: type reads it"
    WHITE_IS_ZERO = (
        "a TIFF of floats or 32 bits says that 0 is white (WhiteIsZero), and has no range to turn it over in"
    )
    NOT_FINITE = "a value of the image is not a number"
    COLOR_OR_VOLUME = (
        "an array of three dimensions, the last 1 or 3, is a picture or a volume; [h, w, d, 1] is a volume"
    )
    OTHER_SHAPE = "the image has other dimensions than dataset.image.size, or channels that are neither 1 nor 3"
    NO_IMAGE = "no file or study has the name that the table gives (dataset.records.accession, dataset.image.folder)"
    AMBIGUOUS_NAME = "two files have the name of the image; the table may name one with its ending"
    TRUNCATED = "the pixel data is cut short"
    UNKNOWN_SYNTAX = "the pixel data is compressed, and the file does not say how (no file meta information)"
    UNSUPPORTED_COMPRESSION = "the pixel data is compressed in a way for which no decoder is installed"
    UNDECODABLE = "the pixel data could not be decompressed"
    NIFTI_PAIR = "the image is a pair of files (.hdr and .img) or of Analyze: save it as one NIfTI file (.nii)"
    SEVERAL_VOLUMES = "the NIfTI holds several volumes (a fourth dimension), and nothing says which is meant"
    COMPLEX = "the values are complex numbers, with no one magnitude that is meant"
    CONFLICTING_GEOMETRY = "the two places that a NIfTI gives itself (sform and qform) differ"
    GRAY_LEVELS = "the values are gray levels or were normalized (8 bits, or a range of 20 or less), and no longer HU"
    LABELS_UNREADABLE = "the label file is not a usable DICOM SEG or NIfTI file"
    SEVERAL_LABELS = "a study or a structure has more than one label file, and nothing says which to take"
    FRACTIONS = "the segmentation holds fractions, and nothing says from which on a voxel counts: give it as BINARY"
    LABELS_MISMATCH = "the labels do not lie on the grid of the images"
    LABELS_FIT_SEVERAL = (
        "several series of the study have the grid of the labels, which name none: keep in its folder the one that "
        "they were drawn on, or give them as a DICOM SEG, which names it"
    )


class Unreadable(Exception):
    """A study or label file that cannot be used. `reason` is all that it says: no path, no identifier, no value."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)  # its only argument, so that it survives the way from a worker process
        self.reason = reason

    def __str__(self) -> str:
        """The sentence of the reason."""
        return self.reason.value


@dataclass(frozen=True)
class Volume:
    """A CT volume on a regular axial grid.

    - `voxels`: float32 (slice, row, column), HU. Slices run from inferior to superior, rows from anterior to posterior,
      columns from the patient's right to the left, whatever the orientation in the file was.
    - `affine`: float64 4 x 4. `affine @ (column, row, slice, 1)` is the center of that voxel in the patient's LPS
      coordinates (x to the left, y to the back, z to the head), mm. Its first three columns are close to +x, +y, +z.
    - `spacing`: (slice, row, column), mm: the lengths of the affine's columns 2, 1, 0.
    - `series_instance_uid`, `frame_of_reference_uid`: as in the files; empty for NIfTI or where the tag is absent.
    - `sop_instance_uids`: one a slice, in the order of the slices; empty for NIfTI.
    - `series_number`: None for NIfTI or where the tag is absent.
    - `remarks`: how it was chosen among the study's series and what was left out, with the number of each.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    series_instance_uid: str
    frame_of_reference_uid: str
    sop_instance_uids: tuple[str, ...]
    series_number: int | None = None
    remarks: Mapping[Remark, int] = field(default_factory=dict)
